// Tests the pages of `host dev` in a browser. scripts/test-browser runs this file: node dev.js
// TARGET-FOLDER
"use strict";

const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");

const target = process.argv[2];
const repository = path.resolve(__dirname, "../..");
const folder = path.join(fs.mkdtempSync(path.join(require("node:os").tmpdir(), "host-browser-")), "pages");
const source = path.join(folder, "src/lib.rs");
const patience = 1000 * Number(process.env.HOST_TEST_PATIENCE || 60);

function writeCrate() {
  fs.mkdirSync(path.join(folder, "src"), { recursive: true });
  fs.mkdirSync(path.join(folder, "static"));
  const manifest = fs.readFileSync(path.join(__dirname, "Cargo.toml.in"), "utf8");
  fs.writeFileSync(path.join(folder, "Cargo.toml"), manifest.replace("PLUGIN-API", path.join(repository, "plugin-api")));
  fs.copyFileSync(path.join(__dirname, "lib.rs"), source);
  // The versions that the repository has are on the machine.
  fs.copyFileSync(path.join(repository, "Cargo.lock"), path.join(folder, "Cargo.lock"));
}

// Starts a session, and gives where it serves.
function start() {
  const env = { ...process.env, CARGO_TARGET_DIR: path.join(target, "browser/target") };
  const host = path.join(target, "debug/host");
  const session = spawn(host, ["dev", "--bind=127.0.0.1:0"], { cwd: folder, env, stdio: ["pipe", "pipe", "inherit"] });
  const origin = new Promise((resolve, reject) => {
    let said = "";
    session.stdout.on("data", (data) => {
      process.stdout.write(data);
      said += data;
      const found = /Listening on (http:\S+)/.exec(said);
      if (found) resolve(found[1]);
    });
    session.on("exit", (code) => reject(new Error(`the session ended: ${code}`)));
  });
  return { session, origin };
}

function edit(from, to) {
  const text = fs.readFileSync(source, "utf8");
  assert(text.includes(from), from);
  fs.writeFileSync(source, text.replaceAll(from, to));
}

const heading = (page, text) => page.waitForFunction(
  (text) => document.querySelector("h1")?.textContent === text, text, { timeout: patience });

const overlay = (page, text) => page.waitForFunction(
  (text) => document.querySelector("host-dev-overlay")?.shadowRoot.textContent.includes(text) ?? text === null,
  text, { timeout: patience });

const noOverlay = (page) => page.waitForFunction(
  () => !document.querySelector("host-dev-overlay"), null, { timeout: patience });

async function main() {
  writeCrate();
  const { session, origin } = start();
  const base = (await origin) + "/browser-pages";
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    // A page that is asked for while the first build runs becomes the app.
    const first = await browser.newPage();
    await first.goto(base, { waitUntil: "commit" });
    await heading(first, "version 1");
    console.log("ok: the page of the first build becomes the app");

    const pages = {};
    for (const name of ["streamed", "compressed", "strict", "spa"]) {
      pages[name] = await browser.newPage();
      await pages[name].goto(`${base}/${name}`, { waitUntil: "commit" });
      await heading(pages[name], "version 1");
    }
    pages.plain = first;
    await pages.spa.waitForFunction(() => document.title.endsWith("/spa/inner"));

    edit("-> Html<String> {", "-> Html<String> { oops;");
    for (const [name, page] of Object.entries(pages)) {
      await page.bringToFront();
      await overlay(page, "The build failed");
      await overlay(page, "oops");
      assert.equal(await page.locator("h1").first().textContent(), "version 1");
      console.log(`ok: the overlay is over the ${name} page`);
    }
    edit("-> Html<String> { oops;", "-> Html<String> {");
    for (const [name, page] of Object.entries(pages)) {
      await page.bringToFront();
      await noOverlay(page);
      console.log(`ok: the overlay leaves the ${name} page`);
    }
    edit("version 1", "version 2");
    for (const [name, page] of Object.entries(pages)) {
      await page.bringToFront();
      await heading(page, "version 2");
      console.log(`ok: the ${name} page refreshes itself`);
    }

    await first.goto(`${base}/panic`);
    const text = await first.textContent("body");
    for (const part of ["panicked: out of bread", "src/lib.rs:", "nearly out of bread", "browser_pages::panics"]) {
      assert(text.includes(part), `${part}: ${text}`);
    }
    console.log("ok: a panic is explained");
    edit("panic!(\"out of bread\")", "\"bread\"");
    await first.waitForFunction(() => document.body.textContent === "bread", null, { timeout: patience });
    console.log("ok: the explanation becomes the app");
  } finally {
    await browser.close();
    session.removeAllListeners("exit");
    session.kill("SIGINT");
    fs.rmSync(path.dirname(folder), { recursive: true });
  }
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
