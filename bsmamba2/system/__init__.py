"""What this package needs of the operating system: files, signals, processes, devices, versions."""
