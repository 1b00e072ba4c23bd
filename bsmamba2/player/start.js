// Makes a player of each element of class "player", with the data in the script element behind it.
document.querySelectorAll(".player").forEach((host, number) => {
  const song = JSON.parse(host.nextElementSibling.textContent);
  // The data is not needed as text any more.
  host.nextElementSibling.remove();
  host.player = new Player(host, song, number);
});
