// The interactive viewer: four NiiVue panes with one crosshair. NiiVue and the volumes lie in this
// page, gzipped in base64; they are unpacked when the viewer comes into view. Nothing is fetched.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const nonce = document.currentScript.nonce;
  const settings = JSON.parse(byId("viewer-settings").textContent);
  const root = byId("viewer");
  const say = (words, state) => {
    byId("viewer-message").textContent = words;
    if (state) root.dataset.state = state;
  };

  // Patient's right is on the left of the screen. Steps in voxels (right, front, up) for each key.
  const KEYS = {
    axial: { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] },
    coronal: { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], PageUp: [0, 1, 0], PageDown: [0, -1, 0] },
    sagittal: { ArrowLeft: [0, 1, 0], ArrowRight: [0, -1, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], PageUp: [1, 0, 0], PageDown: [-1, 0, 0] },
  };
  const SLICES = { axial: 0, coronal: 1, sagittal: 2, all: 3 };
  const PANES = 4;

  let panes = [];
  let current = settings.cases[0];
  let linking = false;

  const unpack = async (id) => {
    const text = atob(byId(id).textContent.trim());
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  const loadLibrary = async () => {
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = new TextDecoder().decode(await unpack("niivue-source"));
    document.head.append(script);
    if (!globalThis.niivue) throw new Error("NiiVue did not load");
  };

  const number = (value, digits) => {
    if (!Number.isFinite(value)) return "–";
    return value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "\u2212");
  };

  const read = (pane, data) => {
    const value = data.values.length ? data.values[0].value : NaN;
    pane.value.textContent = `${number(value, current.digits)} ${current.unit}`.trim();
  };

  // One crosshair: whoever moves it takes the others along, each on its own grid.
  const moved = (pane, data) => {
    read(pane, data);
    if (linking) return;
    linking = true;
    const mm = [data.mm[0], data.mm[1], data.mm[2]];
    byId("viewer-place").textContent = mm.map((part) => number(part, 1)).join(", ");
    for (const other of panes) if (other !== pane) goTo(other, mm);
    linking = false;
  };

  const goTo = (pane, mm) => {
    if (!pane.nv.volumes.length) return;
    pane.nv.scene.crosshairPos = pane.nv.mm2frac(mm);
    pane.nv.createOnLocationChange();
    pane.nv.drawScene();
  };

  const step = (pane, event) => {
    const plane = byId("viewer-plane").value;
    const by = (KEYS[plane] ?? KEYS.axial)[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // NiiVue has keys of its own
    pane.nv.moveCrosshairInVox(...by);
  };

  const makePane = async (figure) => {
    const nv = new globalThis.niivue.Niivue({
      logLevel: "error",
      loadingText: "",
      dragAndDropEnabled: false,
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      show3Dcrosshair: false,
      multiplanarShowRender: 0,
      crosshairColor: [1, 0.82, 0.25, 0.9],
      crosshairWidth: 1,
      backColor: [0, 0, 0, 1],
      dragMode: 0,
      scrollRequiresFocus: true, // so that a wheel over the page scrolls the page
      viewModeHotKey: "",
      clipPlaneHotKey: "",
    });
    const canvas = figure.querySelector("canvas");
    const pane = {
      nv,
      figure,
      canvas,
      select: figure.querySelector("select"),
      value: figure.querySelector(".pane-value"),
    };
    canvas.addEventListener("keydown", (event) => step(pane, event), { capture: true });
    await nv.attachToCanvas(canvas);
    nv.onLocationChange = (data) => moved(pane, data);
    pane.select.addEventListener("change", () => show(pane, Number(pane.select.value), place()));
    return pane;
  };

  const place = () => {
    const { nv } = panes[0];
    return nv.volumes.length ? Array.from(nv.frac2mm(nv.scene.crosshairPos)).slice(0, 3) : current.at;
  };

  const show = async (pane, which, mm) => {
    const entry = current.volumes[which];
    const { low, high } = grey();
    const image = await globalThis.niivue.NVImage.loadFromFile({
      file: new File([await unpack(entry.id)], `${entry.id}.nii`),
      cal_min: low,
      cal_max: high,
      trustCalMinMax: false,
    });
    while (pane.nv.volumes.length) pane.nv.removeVolume(pane.nv.volumes[0]);
    pane.nv.addVolume(image);
    image.cal_min = low;
    image.cal_max = high;
    pane.nv.updateGLVolume();
    pane.nv.setInterpolation(!byId("viewer-smooth").checked);
    pane.nv.setSliceType(SLICES[byId("viewer-plane").value]);
    pane.figure.style.setProperty("--accent", entry.accent === null ? "#6b737a" : `var(--m${entry.accent})`);
    linking = true;
    goTo(pane, mm);
    linking = false;
  };

  const grey = () => {
    const level = Number(byId("viewer-level").value);
    const width = Number(byId("viewer-width").value);
    return { low: level - width / 2, high: level + width / 2 };
  };

  const setGrey = () => {
    const { low, high } = grey();
    const digits = high - low > 20 ? 0 : current.digits;
    byId("viewer-level-value").textContent = number((low + high) / 2, digits);
    byId("viewer-width-value").textContent = number(high - low, digits);
    for (const { nv } of panes) {
      if (!nv.volumes.length) continue;
      nv.volumes[0].cal_min = low;
      nv.volumes[0].cal_max = high;
      nv.updateGLVolume();
    }
  };

  const reset = () => {
    const [low, high] = current.window;
    const [least, most] = current.range;
    Object.assign(byId("viewer-level"), { min: least, max: most });
    Object.assign(byId("viewer-width"), { min: (most - least) / 200, max: most - least });
    byId("viewer-level").value = (low + high) / 2;
    byId("viewer-width").value = high - low;
    setGrey();
  };

  const showCase = async (number_) => {
    current = settings.cases[number_];
    reset();
    const wanted = [0, current.reference, current.model, current.volumes.length - 1];
    for (const [n, pane] of panes.entries()) {
      pane.select.replaceChildren(...current.volumes.map((v, i) => new Option(v.title, String(i), false, i === wanted[n])));
      await show(pane, wanted[n], current.at);
    }
    home();
  };

  // All crosshairs to where the case's pictures were cut.
  const home = () => {
    linking = true;
    for (const pane of panes) goTo(pane, current.at);
    linking = false;
    byId("viewer-place").textContent = current.at.map((part) => number(part, 1)).join(", ");
  };

  const start = async () => {
    if (!document.createElement("canvas").getContext("webgl2")) {
      say("This browser has no WebGL 2, which the viewer needs. The pictures above show the same planes.", "failed");
      return;
    }
    if (!globalThis.DecompressionStream) {
      say("This browser cannot unpack gzip (DecompressionStream); a newer one can show the viewer.", "failed");
      return;
    }
    try {
      say("Unpacking the volumes…", "loading");
      await loadLibrary();
      panes = [];
      for (const figure of [...root.querySelectorAll(".pane")].slice(0, PANES)) panes.push(await makePane(figure));
      await showCase(0);
      say("", "ready");
    } catch (error) {
      say(`The viewer could not start: ${error.message}`, "failed");
    }
  };

  for (const id of ["viewer-level", "viewer-width"]) byId(id).addEventListener("input", setGrey);
  byId("viewer-reset").addEventListener("click", () => {
    reset();
    home();
  });
  byId("viewer-plane").addEventListener("change", (event) => {
    for (const { nv } of panes) nv.setSliceType(SLICES[event.target.value]);
  });
  byId("viewer-smooth").addEventListener("change", (event) => {
    for (const { nv } of panes) nv.setInterpolation(!event.target.checked);
  });
  byId("viewer-case")?.addEventListener("change", (event) => showCase(Number(event.target.value)));

  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    start();
  }, { rootMargin: "200px" });
  watcher.observe(root);
})();
