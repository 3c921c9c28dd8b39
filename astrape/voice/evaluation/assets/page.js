"use strict";
(() => {
  // A sound or picture that several pairs share is in the file once. Addresses of blobs let players seek at once.
  const stored = JSON.parse(document.getElementById("assets").textContent);
  const addresses = new Map();
  const address = (key) => {
    if (!addresses.has(key)) {
      const [head, body] = stored[key].split(",", 2);
      const bytes = Uint8Array.from(atob(body), (char) => char.charCodeAt(0));
      addresses.set(key, URL.createObjectURL(new Blob([bytes], { type: head.slice(5, head.indexOf(";")) })));
      delete stored[key];
    }
    return addresses.get(key);
  };
  for (const element of document.querySelectorAll("[data-asset]")) element.src = address(element.dataset.asset);

  const players = [...document.querySelectorAll("audio")];
  for (const player of players) {
    const plot = player.closest(".sound").querySelector(".plot");
    const now = plot && plot.querySelector(".now");
    const place = () => {
      if (!now || !player.duration) return;
      now.style.visibility = "visible";
      now.style.left = `${(100 * player.currentTime) / player.duration}%`;
    };
    let frame = 0;
    const follow = () => {
      place();
      frame = requestAnimationFrame(follow);
    };
    player.addEventListener("play", () => {
      for (const other of players) if (other !== player) other.pause();
      cancelAnimationFrame(frame);
      follow();
    });
    for (const name of ["pause", "ended"]) player.addEventListener(name, () => cancelAnimationFrame(frame));
    player.addEventListener("seeked", place);
    if (plot) {
      plot.addEventListener("click", (event) => {
        const box = plot.getBoundingClientRect();
        if (player.duration) player.currentTime = (player.duration * (event.clientX - box.left)) / box.width;
        player.play();
      });
    }
  }

  for (const table of document.querySelectorAll("table.pairs")) sortable(table);

  function sortable(table) {
    const body = table.tBodies[table.tBodies.length - 1];
    const headings = [...table.tHead.rows[0].cells];
    const key = (row, column) => {
      const value = row.cells[column].dataset.value;
      return value === undefined ? row.cells[column].textContent.trim() : value === "" ? null : Number(value);
    };
    headings.forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => {
        const descending = heading.getAttribute("aria-sort") === "ascending";
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a, column), key(b, column)];
          // What has no value stands last either way.
          if (x === null || y === null) return (x === null) - (y === null);
          const order = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
          return descending ? -order : order;
        });
        body.append(...rows);
      });
    });
  }
})();
