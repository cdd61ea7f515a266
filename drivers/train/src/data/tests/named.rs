//! Data sets by their names.

use super::*;

#[test]
fn data_set_by_name_is_found_below_the_folders_that_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "lm/wikitext-2/raw/train.txt", "text");
    let found = find("wikitext-2", &search(folder.path())).unwrap();
    assert_eq!(found, folder.path().join("lm/wikitext-2"));
}

#[test]
fn data_set_that_is_nowhere_says_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let error = find("wikitext-2", &search(folder.path())).unwrap_err().to_string();
    for wanted in
        [DATASETS_VARIABLE, "cache/datasets", "http://127.0.0.1:9/datasets/Salesforce", "Dataset(name:"]
    {
        assert!(error.contains(wanted), "{error}");
    }
    let error = find("nothing", &search(folder.path())).unwrap_err().to_string();
    assert!(error.contains("wikitext-2"), "it says which names are known: {error}");
}
