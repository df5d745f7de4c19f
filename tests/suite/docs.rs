//! The documentation: its examples are built, tested and served, and its links lead to existing files and headings.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use host_tests::{Setup, Workbench, eventually, full};
use hyper::Request;
use serde_json::{Map, Value};

#[test]
fn snippets_are_parts_of_files_that_are_built() {
    for (page, folder) in [
        ("docs/GUIDE.md", "docs/guide"),
        ("docs/ADAPTERS.md", "docs/adapters"),
    ] {
        let text = read(page);
        let snippets = snippets(&text);
        assert!(
            snippets.len() >= 5,
            "{page} has {} snippets",
            snippets.len()
        );
        for snippet in snippets {
            let (first, part) = snippet.split_once('\n').unwrap();
            let file = first.trim_start_matches(['/', '#', ' ']);
            let path = repository().join(folder).join(file);
            let file = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{page}, {first:?}: {}: {error}", path.display()));
            for part in part.split("\n\n") {
                let is_found = file.contains(part.trim_end());
                assert!(is_found, "{page}: {} has no\n{part}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn the_crate_of_the_guide_passes_its_tests_and_serves_as_its_page_says() {
    let bench = Workbench::new("guide");
    let shop = bench.path().join("shop");
    copy_folder(&repository().join("docs/guide"), &shop);
    let manifest = fs::read_to_string(shop.join("Cargo.toml")).unwrap();
    let path = repository().join("plugin-api");
    let manifest = manifest.replace("../../plugin-api", path.to_str().unwrap());
    fs::write(shop.join("Cargo.toml"), manifest).unwrap();
    let manifest = "--manifest-path=shop/Cargo.toml";
    bench.cargo(&[
        "test",
        "--quiet",
        manifest,
        "--all-targets",
        "--features=standalone",
    ]);
    bench.cargo(&["build", "--quiet", manifest]);

    let setup = Setup::new();
    let library = bench.target().join("debug/libshop.so");
    fs::copy(library, setup.folder().join("libshop.so")).unwrap();
    let folder = shop.join("public");
    let settings = fs::read_to_string(shop.join("host.toml")).unwrap();
    let settings = settings
        .replace("plugins = \"./plugins\"", "")
        .replace("/srv/shop/public", folder.to_str().unwrap())
        .replace("/srv/outlet/public", folder.to_str().unwrap());
    let file = shop.join("test.toml");
    fs::write(&file, settings).unwrap();
    let host = setup
        .arg(format!("--config={}", file.display()))
        .start()
        .await;
    host.serves("/title", "Corner shop").await;
    host.serves("/outlet/title", "Outlet").await;
    assert_eq!(host.get("/outlet/client").await.text(), "127.0.0.1");
    assert_eq!(
        host.get("/outlet/help").await.header("location"),
        "/outlet/help/"
    );
    assert_eq!(host.get("/help").await.header("location"), "/help/");
    assert!(
        host.get("/outlet/help/")
            .await
            .text()
            .contains("<h1>Help</h1>")
    );
}

#[tokio::test]
async fn lines_in_json_have_the_keys_that_the_reference_lists() {
    let page = read("docs/REFERENCE.md");
    let args = [
        "--log-format=json",
        "--access-log=-",
        "--access-log-format=json",
    ];
    let host = Setup::new().plugin("hello").args(&args).start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::get("/").header("traceparent", trace);
    host.exchange(request.body(full("")).unwrap()).await;
    let line = eventually("a line of the app", async || {
        let lines = host.log().with(&["this is an INFO message"]);
        lines.first().cloned()
    })
    .await;
    assert_eq!(keys(&line), documented_keys(&page, "## A line of the log"));
    let line = eventually("a line for the request", async || {
        host.stdout().with(&["duration_us"]).first().cloned()
    })
    .await;
    assert_eq!(
        keys(&line),
        documented_keys(&page, "## A line of the access log")
    );
}

/// Returns the keys of a JSON object.
fn keys(line: &str) -> BTreeSet<String> {
    let object: Map<String, Value> = serde_json::from_str(line).unwrap();
    object.into_iter().map(|(key, _)| key).collect()
}

/// Returns the keys that the first table of keys below a heading lists.
fn documented_keys(page: &str, heading: &str) -> BTreeSet<String> {
    let (_, section) = page.split_once(heading).unwrap();
    let (_, table) = section.split_once("| key | type | is |").unwrap();
    let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','));
    names
        .map(|name| name.trim().trim_matches('`').to_owned())
        .collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in link_targets(&text) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let at = format!("{}: {link}", page.display());
            assert!(path.exists(), "{at} is not there");
            if !heading.is_empty() {
                let text = fs::read_to_string(path).unwrap();
                assert!(
                    headings(&text).any(|other| other == heading),
                    "{at} is no heading"
                );
            }
        }
    }
    assert!(links > 20, "only {links} links");
}

/// Returns the code blocks of a page in the languages that the tests build.
fn snippets(text: &str) -> Vec<String> {
    let mut snippets = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "```rust" || line == "```toml" {
            let code = lines.by_ref().take_while(|line| *line != "```");
            snippets.push(code.map(|line| format!("{line}\n")).collect());
        }
    }
    snippets
}

/// Returns the targets of all links of a page. Code blocks are skipped.
fn link_targets(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let prose = text.lines().filter(move |line| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code
    });
    let links = prose.flat_map(|line| line.split("](").skip(1));
    links
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .collect()
}

/// Returns the headings of a page in the form in which a link names them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    titles.map(|title| {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let letters = title.chars().filter_map(|letter| match letter {
            ' ' => Some('-'),
            letter => (letter.is_alphanumeric() || "-_".contains(letter)).then_some(letter),
        });
        letters.collect()
    })
}

/// Returns the paths of README.md, CHANGELOG.md and all pages in `docs`.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(repository().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let changes = repository().join("CHANGELOG.md");
    docs.chain([repository().join("README.md"), changes])
        .collect()
}

/// Copies a folder with its subfolders, but without folders named `target`.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        match path.is_dir() {
            true if name == "target" => {}
            true => copy_folder(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// Returns the text of a file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// Returns the folder of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
