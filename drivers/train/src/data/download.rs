//! Fetches a file over HTTP, goes on where an earlier try stopped, and checks what came.
//!
//! Hubs tell the SHA-256 of large files in the header `X-Linked-ETag` of their first answer, before they redirect;
//! other servers tell a version, as `ETag` or as the time of its last change. A file that is not whole lies beside its
//! place under a name that has this digest or version in it, so that a new version on the server never continues an old
//! one; where a server tells neither, a later call begins anew. Who writes to it has its lock: of several programs that want the same file one
//! fetches it, and the others wait and find it done.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use ureq::http::StatusCode;

use super::limits::DOWNLOAD_BYTES_MAX;
use crate::token::hex;

/// How long a server may take to accept, to begin an answer, or to go on with it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Tries at one file; each goes on where the one before stopped.
const TRIES: u32 = 3;

/// What is to be fetched.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    pub url: &'a str,
    pub to: &'a Path,
    /// What it must hash to, where that is known beforehand.
    pub sha256: Option<&'a str>,
    /// How long the server may be silent.
    pub patience: Duration,
}

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the server answers {0}")]
    Status(StatusCode),
    #[error("it ended after {got} of {wanted} bytes")]
    Short { got: u64, wanted: u64 },
    #[error("it broke off after {got} bytes: {why}")]
    Broken { got: u64, why: String },
    #[error("it has more than {DOWNLOAD_BYTES_MAX} bytes, which is the limit")]
    TooLarge,
    #[error("its SHA-256 is {found} and must be {wanted}; it was damaged on the way and is not kept")]
    Digest { found: String, wanted: String },
    #[error("{}: {error}", path.display())]
    Disk { path: PathBuf, error: std::io::Error },
}

/// Fetches a file to its place. One that is there is not fetched again.
///
/// # Errors
///
/// The last try's. What came stays, and the next call goes on from there if the server tells that it is still the same.
pub fn fetch(what: &Fetch<'_>) -> Result<(), FetchError> {
    if what.to.exists() {
        return Ok(());
    }
    let settings = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(what.patience))
        .timeout_recv_response(Some(what.patience))
        .timeout_per_read(Some(what.patience));
    // A proxy is the way to other machines, and does not reach this one.
    let settings = if is_here(what.url) { settings.proxy(None) } else { settings };
    let agent: ureq::Agent = settings.build().into();
    let folder = what.to.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(disk(folder))?;
    let told = ask(&agent, what.url)?;
    let wanted = what.sha256.map(str::to_owned).or(told.sha256);
    let version = wanted.clone().or(told.version);
    let partial = partial_path(what.to, version.as_deref());
    let mut file = claim(&partial).map_err(disk(&partial))?;
    if version.is_none() {
        file.set_len(0).map_err(disk(&partial))?;
    }
    if what.to.exists() {
        // Another one has fetched it while this one waited.
        return std::fs::remove_file(&partial).map_err(disk(&partial));
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let outcome = try_once(&agent, what, (&partial, &mut *file), wanted.as_deref());
        let again = matches!(
            outcome,
            Err(FetchError::Unreachable(_) | FetchError::Short { .. } | FetchError::Broken { .. })
        );
        if !again || tries == TRIES {
            return outcome;
        }
    }
}

/// Whether a URL is of this very machine.
fn is_here(url: &str) -> bool {
    let uri = url.parse::<ureq::http::Uri>();
    let host = uri.as_ref().ok().and_then(|uri| uri.host()).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Opens the file that is not whole, when nobody else writes to it.
fn claim(partial: &Path) -> std::io::Result<Flock<File>> {
    loop {
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(partial)?;
        let locked = loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(locked) => break locked,
                Err((same, Errno::EINTR)) => file = same,
                Err((_, errno)) => return Err(errno.into()),
            }
        };
        // The one before may have given it its name, or removed it: then this is no longer the file of this name.
        let own = locked.metadata()?.ino();
        if std::fs::metadata(partial).is_ok_and(|named| named.ino() == own) {
            return Ok(locked);
        }
    }
}

fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> FetchError + '_ {
    move |error| FetchError::Disk { path: path.to_owned(), error }
}

/// What a server tells of a file before it sends it.
#[derive(Debug, Default)]
struct Told {
    sha256: Option<String>,
    /// In hexadecimal digits, at least sixteen.
    version: Option<String>,
}

/// Asks for that. Servers that do not answer such a question, or are made to refuse it, tell nothing, and may send the file.
fn ask(agent: &ureq::Agent, url: &str) -> Result<Told, FetchError> {
    let request = agent.head(url).config().max_redirects(0).build();
    let answer = request.call().map_err(|error| FetchError::Unreachable(error.to_string()))?;
    let refusals = [StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
    if refusals.contains(&answer.status()) {
        return Ok(Told::default());
    }
    if answer.status().is_client_error() || answer.status().is_server_error() {
        return Err(FetchError::Status(answer.status()));
    }
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let linked = header("x-linked-etag").map(|tag| tag.trim_matches('"').to_lowercase());
    let version = header("etag").or_else(|| header("last-modified"));
    Ok(Told {
        sha256: linked.filter(|tag| tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit())),
        version: version.map(|version| hex(&Sha256::digest(version))),
    })
}

fn try_once(
    agent: &ureq::Agent,
    what: &Fetch<'_>,
    (partial, file): (&Path, &mut File),
    wanted: Option<&str>,
) -> Result<(), FetchError> {
    let have = file.seek(SeekFrom::End(0)).map_err(disk(partial))?;
    let mut request = agent.get(what.url);
    if have > 0 {
        request = request.header("range", format!("bytes={have}-"));
    }
    let mut answer = request.call().map_err(|error| FetchError::Unreachable(error.to_string()))?;
    let from = match answer.status() {
        StatusCode::PARTIAL_CONTENT => have,
        // The server knows no ranges: all of it comes again.
        StatusCode::OK => 0,
        // All of it was there already.
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return keep(what, partial, wanted),
        status => return Err(FetchError::Status(status)),
    };
    let length =
        answer.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| from.saturating_add(length) > DOWNLOAD_BYTES_MAX) {
        return Err(FetchError::TooLarge);
    }
    file.set_len(from).map_err(disk(partial))?;
    file.seek(SeekFrom::Start(from)).map_err(disk(partial))?;
    let got = copy(&mut answer.body_mut().as_reader(), (file, partial), from)?;
    match length {
        Some(length) if got < from + length => Err(FetchError::Short { got, wanted: from + length }),
        _ => keep(what, partial, wanted),
    }
}

/// Copies what comes behind the bytes that are there, and says how many there are then. What came stays when the
/// connection breaks.
fn copy(from: &mut impl Read, (to, path): (&mut File, &Path), have: u64) -> Result<u64, FetchError> {
    let mut buffer = vec![0; 1 << 16];
    let mut total = have;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(FetchError::Broken { got: total, why: error.to_string() }),
        };
        total += count as u64;
        if total > DOWNLOAD_BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        to.write_all(&buffer[..count]).map_err(disk(path))?;
    }
}

fn partial_path(to: &Path, version: Option<&str>) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", version.map_or("unknown", |digits| &digits[..16])));
    to.with_file_name(name)
}

/// Checks what came and gives it its name.
fn keep(what: &Fetch<'_>, partial: &Path, wanted: Option<&str>) -> Result<(), FetchError> {
    if let Some(wanted) = wanted {
        let found = sha256_of(partial).map_err(disk(partial))?;
        if found != wanted {
            std::fs::remove_file(partial).map_err(disk(partial))?;
            return Err(FetchError::Digest { found, wanted: wanted.to_owned() });
        }
    }
    std::fs::rename(partial, what.to).map_err(disk(what.to))
}

/// The SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
///
/// Those of the file.
pub fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told_from_others() {
        for here in ["http://127.0.0.1:9/a", "http://localhost/a", "http://[::1]:8080"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in ["https://huggingface.co/a", "http://10.0.0.1", "http://localhost.example.com", "a"]
        {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }
}
