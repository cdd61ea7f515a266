//! Data sets by name: in the folders of `LLMASOS_DATASETS`, then in the cache, then from a mirror.
//!
//! A mirror is a web server with the layout of the Hugging Face hub. Where none is configured, the hub itself is asked.

use std::path::{Path, PathBuf};

use super::download::{self, Fetch, PATIENCE};
use super::error::DataError;

/// The variable with the folders that are searched first, separated as in `PATH`.
pub const DATASETS_VARIABLE: &str = "LLMASOS_DATASETS";

/// The variable with the mirror.
pub const MIRROR_VARIABLE: &str = "LLMASOS_MIRROR";

/// Where data sets are fetched from unless a mirror is named.
pub const HUB: &str = "https://huggingface.co";

/// A data set that is known by a name, and where hubs have it.
struct Known {
    name: &'static str,
    repository: &'static str,
    files: &'static [&'static str],
}

const KNOWN: [Known; 2] = [
    Known {
        name: "wikitext-2",
        repository: "datasets/Salesforce/wikitext",
        files: &[
            "wikitext-2-raw-v1/train-00000-of-00001.parquet",
            "wikitext-2-raw-v1/validation-00000-of-00001.parquet",
            "wikitext-2-raw-v1/test-00000-of-00001.parquet",
        ],
    },
    Known {
        name: "wikitext-103",
        repository: "datasets/Salesforce/wikitext",
        files: &[
            "wikitext-103-raw-v1/train-00000-of-00002.parquet",
            "wikitext-103-raw-v1/train-00001-of-00002.parquet",
            "wikitext-103-raw-v1/validation-00000-of-00001.parquet",
            "wikitext-103-raw-v1/test-00000-of-00001.parquet",
        ],
    },
];

/// Where to look.
#[derive(Clone, Debug)]
pub struct Search {
    /// Folders that hold data sets under their names, or folders with such.
    pub folders: Vec<PathBuf>,
    /// Where fetched ones are kept.
    pub cache: PathBuf,
    /// The server to fetch from.
    pub mirror: String,
}

impl Search {
    /// As the environment says.
    pub fn from_environment(cache: &Path) -> Search {
        let folders = std::env::var_os(DATASETS_VARIABLE);
        let folders = folders.map(|paths| std::env::split_paths(&paths).collect()).unwrap_or_default();
        let mirror = std::env::var(MIRROR_VARIABLE).ok().filter(|mirror| !mirror.is_empty());
        Search { folders, cache: cache.to_owned(), mirror: mirror.unwrap_or_else(|| HUB.into()) }
    }
}

/// The folder of a data set: that of a path, or that which goes by this name.
///
/// # Errors
///
/// [`DataError::NotFound`], which tells where it was looked for and how to give a path.
pub fn find(name: &str, search: &Search) -> Result<PathBuf, DataError> {
    let path = Path::new(name);
    if name.contains('/') || path.is_dir() {
        return match path.is_dir() {
            true => Ok(path.to_owned()),
            false => Err(DataError::file(path, "there is no such folder; give the folder of a data set")),
        };
    }
    let mut looked = Vec::new();
    for folder in &search.folders {
        let below =
            std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let mut candidates: Vec<PathBuf> = below.map(|path| path.join(name)).collect();
        candidates.sort_unstable();
        candidates.insert(0, folder.join(name));
        if let Some(found) = candidates.into_iter().find(|path| path.is_dir()) {
            return Ok(found);
        }
        looked.push(format!("{} ({DATASETS_VARIABLE})", folder.display()));
    }
    if search.folders.is_empty() {
        looked.push(format!("{DATASETS_VARIABLE}, which is not set"));
    }
    let cached = search.cache.join("datasets").join(name);
    let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        looked.push(format!("the names that can be fetched ({})", names.join(", ")));
        return Err(not_found(name, &looked));
    };
    match fetch(known, &cached, &search.mirror) {
        Ok(()) => Ok(cached),
        Err(why) => {
            looked.push(format!("{} (cache)", cached.display()));
            looked.push(why);
            Err(not_found(name, &looked))
        }
    }
}

fn not_found(name: &str, looked: &[String]) -> DataError {
    DataError::NotFound(format!(
        "data set `{name}` is not there; looked in {}. Put its files into a folder of this name, and name the folder \
         above it in {DATASETS_VARIABLE}; or give the path in the specification: Dataset(name: \"/path/to/{name}\")",
        looked.join("; ")
    ))
}

/// Fetches what is missing of a data set.
fn fetch(known: &Known, folder: &Path, mirror: &str) -> Result<(), String> {
    for file in known.files {
        let to = folder.join(file);
        if to.is_file() {
            continue;
        }
        let url = format!("{}/{}/resolve/main/{file}", mirror.trim_end_matches('/'), known.repository);
        download::fetch(&Fetch { url: &url, to: &to, sha256: None, patience: PATIENCE })
            .map_err(|error| format!("{url}: {error}"))?;
    }
    Ok(())
}
