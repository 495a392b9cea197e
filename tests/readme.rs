//! The README tells no other program than the one that runs.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_program_of_the_readme_is_the_quickstart() {
    let readme = read("README.md");
    let (_, rest) = readme.split_once("```rust\n").unwrap();
    let (program, _) = rest.split_once("```").unwrap();
    let quickstart = read("examples/quickstart.rs");
    let code: Vec<&str> = quickstart.lines().skip_while(|line| !line.starts_with("use ")).collect();
    assert_eq!(program.lines().collect::<Vec<_>>(), code);
}

#[test]
fn every_page_that_a_page_points_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for dir in ["docs", "docs/decisions"] {
        let entries = root.join(dir).read_dir().unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|kind| kind == "md")));
    }
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        // At the end of a page, for those that are read elsewhere too.
        let defined = text.lines().filter(|line| line.starts_with('['));
        let defined = defined.filter_map(|line| line.split_once("]: ").map(|(_, link)| link));
        for link in inline.chain(defined) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                let target = page.parent().unwrap().join(path);
                assert!(target.exists(), "{} points to {link}", page.display());
            }
        }
    }
}
