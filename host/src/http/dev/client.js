// The script that `host dev` puts into pages: it refreshes them, and shows what does not compile.
(() => {
  "use strict";
  if (window.__hostDev) return;
  window.__hostDev = true;
  // The session and the version of the apps that made the page.
  const made = document.currentScript.dataset.made;
  let known = null;
  let source = null;

  function listen() {
    if (source || document.visibilityState === "hidden") return;
    // A browser has few connections for one site, so that a page that nobody sees gives its own back.
    source = new EventSource("/_host/dev/events");
    source.onmessage = ({ data }) => heard(JSON.parse(data));
  }

  function heard(state) {
    const now = `${state.session}.${state.swaps}`;
    if (now !== made && !wasReloaded(now)) {
      location.reload();
      return;
    }
    if (known && known.assets.changes !== state.assets.changes) {
      if (!swapAssets(state.assets.files)) {
        location.reload();
        return;
      }
    }
    known = state;
    show(state);
  }

  // A page that comes from a cache whatever is done is loaded again once, not for ever.
  function wasReloaded(now) {
    const key = `host-dev ${location.href}`;
    try {
      if (sessionStorage.getItem(key) === now) return true;
      sessionStorage.setItem(key, now);
    } catch {
      // A page without storage, as in a sandbox, stays as it is.
      return true;
    }
    return false;
  }

  // Takes changed style sheets and images in place. False when something else changed.
  function swapAssets(files) {
    return files.every((file) => {
      const isOf = (url) => {
        try { return new URL(url, location.href).pathname.endsWith("/" + file); } catch { return false; }
      };
      const fresh = (url) => {
        const next = new URL(url, location.href);
        next.searchParams.set("host-dev", Date.now());
        return next.href;
      };
      if (/\.css$/i.test(file)) {
        const links = [...document.querySelectorAll('link[rel~="stylesheet"]')].filter((link) => isOf(link.href));
        for (const link of links) {
          // The old one stays until the new one is there, so that the page does not flash.
          const next = link.cloneNode();
          next.href = fresh(link.href);
          next.onload = next.onerror = () => link.remove();
          link.after(next);
        }
        return links.length > 0;
      }
      if (/\.(png|jpe?g|gif|svg|webp|avif|ico)$/i.test(file)) {
        const images = [...document.images].filter((image) => isOf(image.src));
        for (const image of images) image.src = fresh(image.src);
        return images.length > 0;
      }
      return false;
    });
  }

  let overlay = null;

  function show(state) {
    const isFailed = state.phase.endsWith("-failed") || (overlay && state.phase === "building");
    const isBuildingFirst = state.phase === "building" && document.body && document.body.hasAttribute("data-host-dev");
    if (!isFailed && !isBuildingFirst) {
      if (overlay) overlay.remove();
      overlay = null;
      return;
    }
    if (!overlay) overlay = makeOverlay();
    const { shadowRoot } = overlay;
    const title = {
      "build-failed": "The build failed; the version before serves on",
      "start-failed": "The app did not start; the version before serves on",
    }[state.phase] || "Building" + (state.progress ? ` ${state.progress.done} of ${state.progress.total}` : "") + " …";
    shadowRoot.querySelector("h1").textContent = title;
    const report = shadowRoot.querySelector("pre");
    if (state.phase !== "building") report.replaceChildren(...coloured(state.report));
    report.hidden = !report.textContent;
  }

  // Made without markup as text or styles as attributes, which a page may forbid.
  function makeOverlay() {
    const host = document.createElement("host-dev-overlay");
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(`
      :host { position: fixed; inset: auto 0 0 0; max-height: 80vh; z-index: 2147483647; overflow: auto;
        background: #181818; color: #eee; font: 14px/1.5 ui-monospace, monospace; border-top: 4px solid #c33; }
      h1 { font-size: 14px; margin: 0; padding: .7em 1em; } button { float: right; margin: .5em 1em; }
      pre { margin: 0; padding: 0 1em 1em; white-space: pre-wrap; font: inherit; }
      .red { color: #f77 } .green { color: #7d7 } .yellow { color: #fd7 } .blue { color: #9bf } .cyan { color: #7dd }
      .bold { font-weight: bold }`);
    root.adoptedStyleSheets = [sheet];
    const button = document.createElement("button");
    button.textContent = "Hide";
    button.onclick = () => { host.remove(); };
    root.append(button, document.createElement("h1"), document.createElement("pre"));
    (document.body || document.documentElement).append(host);
    return host;
  }

  // Text with colours of a terminal (ECMA-48, SGR) as elements.
  function coloured(text) {
    const colours = { 31: "red", 91: "red", 32: "green", 92: "green", 33: "yellow", 93: "yellow",
      34: "blue", 94: "blue", 36: "cyan", 96: "cyan" };
    const parts = [];
    let classes = new Set();
    for (const piece of text.split(/(\x1b\[[0-9;]*[A-Za-z])/)) {
      const codes = /^\x1b\[([0-9;]*)m$/.exec(piece);
      if (codes) {
        const numbers = codes[1].split(";");
        if (numbers[0] === "38" && numbers[1] === "5") numbers.splice(0, 3, String(82 + Number(numbers[2])));
        for (const code of numbers) {
          if (code === "" || code === "0") classes = new Set();
          else if (code === "1") classes.add("bold");
          else if (colours[code]) classes.add(colours[code]);
        }
      } else if (piece && !piece.startsWith("\x1b")) {
        const span = document.createElement("span");
        span.className = [...classes].join(" ");
        span.textContent = piece;
        parts.push(span);
      }
    }
    return parts;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden" && source) {
      source.close();
      source = null;
    }
    listen();
  });
  listen();
})();
