//! Models are loaded from open files, whatever becomes of their names.

use std::fs;

use super::*;

/// The model `tiny` in two files; their names.
fn tiny_in_parts(folder: &Path) -> [PathBuf; 2] {
    let names = [1, 2].map(|part| folder.join(format!("m-{part:05}-of-00002.gguf")));
    Shape::preset("tiny").unwrap().write_in_parts(&names).unwrap();
    names
}

fn text_of(driver: &mut dyn Driver) -> Vec<Token> {
    let sampler = spec(sampling(|_| {}));
    generate(driver, &[(tokens(&[40, 41, 42]), sampler)], 8).remove(0)
}

/// Loads what a request says from files that were opened before they lost their names.
fn loaded_without_names(path: &Path, names: &[PathBuf]) -> Box<dyn Driver> {
    let opened = ModelFiles::open(path.to_str().unwrap()).unwrap().unwrap();
    names.iter().for_each(|name| fs::remove_file(name).unwrap());
    load(&LoadRequest { files: opened.descriptors(), ..request(path) }).unwrap()
}

#[test]
fn model_is_loaded_from_its_descriptor_when_its_name_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, named) = (random_model("tiny"), folder.path().join("m.gguf"));
    fs::copy(&whole, &named).unwrap();
    let mut driver = loaded_without_names(&named, std::slice::from_ref(&named));
    assert_eq!(text_of(driver.as_mut()), text_of(mounted(&whole).as_mut()));
}

#[test]
fn model_in_two_files_is_loaded_from_both_descriptors_and_is_the_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let whole = random_model("tiny");
    let names = tiny_in_parts(folder.path());
    let estimate = |path: &Path| drivers::estimate::estimate(&request(path)).unwrap();
    assert_eq!(estimate(&names[0]).layers, estimate(&whole).layers, "all parts count");
    assert_eq!(estimate(&names[0]).output_copy_bytes, estimate(&whole).output_copy_bytes);
    let mut driver = loaded_without_names(&names[0], &names);
    assert_eq!(text_of(driver.as_mut()), text_of(mounted(&whole).as_mut()));
}

#[test]
fn part_that_is_damaged_is_told_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let names = tiny_in_parts(folder.path());
    let sound = fs::read(&names[1]).unwrap();
    for damaged in [b"no model".to_vec(), sound[..sound.len() / 2].to_vec()] {
        fs::write(&names[1], damaged).unwrap();
        let fault = load(&request(&names[0])).err().unwrap();
        assert!(
            fault.message.contains("m-00002-of-00002.gguf") && !fault.message.contains("/fd/"),
            "{fault}"
        );
    }
}
