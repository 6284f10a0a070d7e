// Theme, place in the page, tables that sort and filter, pictures that enlarge. Without this script
// everything is still there to read.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // --- theme -------------------------------------------------------------------------------------
  const themes = ["system", "light", "dark"];
  const button = byId("theme");
  const remember = (value) => { try { localStorage.setItem("medsr-theme", value); } catch { /* private */ } };
  const recall = () => { try { return localStorage.getItem("medsr-theme"); } catch { return null; } };
  const setTheme = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
  };
  let theme = themes.includes(recall()) ? recall() : "system";
  setTheme(theme);
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    setTheme(theme);
    remember(theme);
  });

  // --- where the reader is -----------------------------------------------------------------------
  const links = new Map([...document.querySelectorAll(".rail a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const [id, link] of links) {
        link.classList.toggle("here", id === entry.target.id);
        if (id === entry.target.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("main > section").forEach((section) => seen.observe(section));

  // --- tables ------------------------------------------------------------------------------------
  const collator = new Intl.Collator("en", { numeric: true });
  const compare = (one, other, down) => {
    if (one === "" || other === "") return (one === "") - (other === ""); // what is missing goes last
    const [a, b] = [Number(one), Number(other)];
    const order = Number.isNaN(a) || Number.isNaN(b) ? collator.compare(one, other) : a - b;
    return down ? -order : order;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort ?? "";
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(key(a), key(b), down));
      table.tBodies[0].append(...rows);
    }));
  }
  const filter = byId("scan-filter");
  if (filter) {
    const rows = [...byId("scans-table").tBodies[0].rows];
    const apply = () => {
      const words = byId("scan-search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const method = byId("scan-method").value;
      let shown = 0;
      for (const row of rows) {
        const fits = (!method || row.dataset.method === method) && words.every((w) => row.dataset.search.includes(w));
        row.hidden = !fits;
        shown += fits;
      }
      byId("scan-count").textContent = `${shown} of ${rows.length} rows`;
    };
    filter.hidden = false;
    filter.addEventListener("input", apply);
    filter.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  // --- pictures, enlarged ------------------------------------------------------------------------
  const box = byId("lightbox");
  let group = [];
  const place = (percent) => {
    const at = Math.min(100, Math.max(0, percent));
    byId("sweep-at").value = at;
    byId("sweep-over").style.clipPath = `inset(0 ${100 - at}% 0 0)`;
    byId("sweep").style.setProperty("--at", at);
  };
  const named = (image) => image.dataset.kind === "error" ? `error of ${image.dataset.title}` : image.dataset.title;
  const against = (image) => {
    byId("sweep-under").src = image.src;
    byId("sweep-under").alt = image.alt;
    byId("sweep-right").textContent = named(image);
  };
  // Like is swept against like: images start against the truth, error maps against the rival's, or
  // the rival's own against that of the method the page is about. Other maps are alone of their kind.
  const start = (image, others) => {
    const { lead, rival } = image.closest(".panels").dataset;
    const wanted = image.dataset.kind === "image" ? ["truth"] : [rival, lead];
    for (const title of wanted) {
      const found = others.find((other) => other.dataset.title === title);
      if (found) return found;
    }
    return others[0] ?? image;
  };
  const open = (image) => {
    const panels = image.closest(".panels");
    const kind = image.dataset.kind;
    group = kind === "consistency" ? [image] : [...panels.querySelectorAll(`img[data-kind="${kind}"]`)];
    byId("lightbox-title").textContent = `${named(image)}: ${panels.dataset.plane ?? ""}`;
    byId("sweep-over").src = image.src;
    byId("sweep-over").alt = image.alt;
    byId("sweep-left").textContent = named(image);
    const others = group.filter((other) => other !== image);
    const first = start(image, others);
    const select = byId("lightbox-other");
    select.closest("label").hidden = !others.length;
    select.replaceChildren(...others.map((other) => {
      const option = new Option(named(other), String(group.indexOf(other)));
      option.selected = other === first;
      return option;
    }));
    against(first);
    place(50);
    box.showModal();
  };
  document.querySelectorAll(".panel button").forEach((zoom) => {
    zoom.addEventListener("click", () => open(zoom.querySelector("img")));
  });
  if (box) {
    byId("lightbox-other").addEventListener("change", (event) => against(group[Number(event.target.value)]));
    byId("lightbox-close").addEventListener("click", () => box.close());
    byId("sweep-at").addEventListener("input", (event) => place(Number(event.target.value)));
    const drag = (event) => {
      const area = byId("sweep").getBoundingClientRect();
      place((100 * (event.clientX - area.left)) / area.width);
    };
    byId("sweep").addEventListener("pointerdown", (event) => {
      event.preventDefault();
      byId("sweep").setPointerCapture(event.pointerId);
      drag(event);
    });
    byId("sweep").addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
    box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  }
})();
