//! Every property of `contracts/PROPERTIES.md` is shown by a test, and every test that names one names a real one.

use std::{collections::BTreeSet, fs, path::Path};

use assay_harness::root;

/// Folders of tests that show properties.
const FOLDERS: [&str; 2] = ["contracts/test", "tests"];
const KINDS: [char; 10] = ['M', 'L', 'T', 'B', 'D', 'P', 'V', 'X', 'G', 'E'];

fn listed() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("contracts/PROPERTIES.md")).unwrap();
    let numbers = text.lines().filter_map(|line| line.strip_prefix("- **")?.split("**").next());
    let all: Vec<String> = numbers.map(str::to_owned).collect();
    let set: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(all.len(), set.len(), "a number is given twice");
    set
}

/// Numbers in brackets in a text: `[M1]`, `[D4, D5]`.
fn named(text: &str, into: &mut BTreeSet<String>) {
    for part in text.split('[').skip(1) {
        let Some((inside, _)) = part.split_once(']') else { continue };
        let numbers: Vec<&str> = inside.split(", ").collect();
        if numbers.iter().all(|number| is_number(number)) {
            into.extend(numbers.into_iter().map(str::to_owned));
        }
    }
}

fn is_number(text: &str) -> bool {
    let mut chars = text.chars();
    let kind = chars.next().is_some_and(|kind| KINDS.contains(&kind));
    let digits = chars.as_str();
    kind && (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

fn walk(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            walk(&path, into);
        } else if matches!(extension, Some("sol" | "rs" | "py")) && !path.ends_with("properties.rs")
        {
            named(&fs::read_to_string(&path).unwrap(), into);
        }
    }
}

#[test]
fn every_property_has_a_test_and_every_tag_a_property() {
    let listed = listed();
    assert!(listed.len() > 30, "only {} properties are listed", listed.len());
    let mut shown = BTreeSet::new();
    FOLDERS.iter().for_each(|folder| walk(&root().join(folder), &mut shown));
    let missing: Vec<_> = listed.difference(&shown).collect();
    assert!(missing.is_empty(), "no test names {missing:?}");
    let unknown: Vec<_> = shown.difference(&listed).collect();
    assert!(unknown.is_empty(), "contracts/PROPERTIES.md has no {unknown:?}");
}

#[test]
fn tags_are_told_from_other_brackets() {
    let mut found = BTreeSet::new();
    named("/// [M1] and [D4, D5], not [0], [M], [M100], [Mx], [a1] or list[M2x]", &mut found);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["D4", "D5", "M1"]);
}
