// The script that `host dev` inserts into pages. It reloads a page after a change, and shows compiler errors.
(() => {
  "use strict";
  if (window.__hostDev) return;
  window.__hostDev = true;
  // The session and the number of swaps when the page was created, as `SESSION.SWAPS`.
  const pageVersion = document.currentScript.dataset.made;
  // The last state that was received.
  let lastState = null;
  // The stream of events. null while the page is hidden.
  let source = null;

  function listen() {
    if (source || document.visibilityState === "hidden") return;
    // A hidden page closes its stream, because a browser opens only few connections to one site.
    source = new EventSource("/_host/dev/events");
    source.onmessage = ({ data }) => handleState(JSON.parse(data));
  }

  function handleState(state) {
    const version = `${state.session}.${state.swaps}`;
    if (version !== pageVersion && !wasReloaded(version)) {
      location.reload();
      return;
    }
    if (lastState && lastState.assets.changes !== state.assets.changes) {
      if (!swapAssets(state.assets.files)) {
        location.reload();
        return;
      }
    }
    lastState = state;
    show(state);
  }

  // Returns whether the page was reloaded for this version before. A page that always comes from a cache would
  // otherwise reload forever. The result is stored for the next load.
  function wasReloaded(version) {
    const key = `host-dev ${location.href}`;
    try {
      if (sessionStorage.getItem(key) === version) return true;
      sessionStorage.setItem(key, version);
    } catch {
      // A page without storage, as in a sandbox, is not reloaded.
      return true;
    }
    return false;
  }

  // Reloads changed style sheets and images without a reload of the page. Returns false if the page has to be reloaded,
  // because another file changed or the page does not use the file.
  function swapAssets(files) {
    return files.every((file) => {
      const isFile = (url) => {
        try { return new URL(url, location.href).pathname.endsWith("/" + file); } catch { return false; }
      };
      // A new query keeps the browser from using its cache.
      const withoutCache = (url) => {
        const next = new URL(url, location.href);
        next.searchParams.set("host-dev", Date.now());
        return next.href;
      };
      if (/\.css$/i.test(file)) {
        const links = [...document.querySelectorAll('link[rel~="stylesheet"]')].filter((link) => isFile(link.href));
        for (const link of links) {
          // The old style sheet is removed after the new one has loaded. Otherwise the page would flash.
          const next = link.cloneNode();
          next.href = withoutCache(link.href);
          next.onload = next.onerror = () => link.remove();
          link.after(next);
        }
        return links.length > 0;
      }
      if (/\.(png|jpe?g|gif|svg|webp|avif|ico)$/i.test(file)) {
        const images = [...document.images].filter((image) => isFile(image.src));
        for (const image of images) image.src = withoutCache(image.src);
        return images.length > 0;
      }
      return false;
    });
  }

  let overlay = null;

  // Shows or hides the overlay with the errors of the last build, and the progress of a build.
  function show(state) {
    // While a build runs, the errors of the last build stay visible.
    const isFailed = state.phase.endsWith("-failed") || (overlay && state.phase === "building");
    // `data-host-dev` marks an explanation page of the server.
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

  // Creates the overlay from elements and a constructed style sheet, because the policy of a page may forbid markup in
  // strings and `style` attributes.
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

  // Converts text with terminal colours (ECMA-48, SGR) to elements.
  function coloured(text) {
    const colours = { 31: "red", 91: "red", 32: "green", 92: "green", 33: "yellow", 93: "yellow",
      34: "blue", 94: "blue", 36: "cyan", 96: "cyan" };
    const parts = [];
    let classes = new Set();
    for (const piece of text.split(/(\x1b\[[0-9;]*[A-Za-z])/)) {
      const codes = /^\x1b\[([0-9;]*)m$/.exec(piece);
      if (codes) {
        const numbers = codes[1].split(";");
        // The colours 8 to 15 of the 256 colours are the bright colours 90 to 97.
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
