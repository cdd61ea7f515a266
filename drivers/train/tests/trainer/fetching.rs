//! Data sets that go by a name: fetched from a server with the layout of hubs, checked, and gone on with.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use sha2::{Digest, Sha256};
use train::data::{Fetch, PATIENCE, Search, Split, fetch, find};

use super::Place;

/// A server that has one body for every path, tells of it what a header says, knows ranges, and breaks its first answers
/// off.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn serve(body: Vec<u8>, digest: String, breaks: usize) -> Server {
    serve_told(body, format!("x-linked-etag: \"{digest}\"\r\n"), breaks)
}

fn serve_told(body: Vec<u8>, told: String, breaks: usize) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    std::thread::spawn(move || {
        let mut left = breaks;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            let headers: Vec<String> =
                lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let range = headers.iter().find_map(|line| {
                line.to_lowercase().strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
            });
            noted.lock().unwrap().push(format!("{} {range:?}", first.split(" HTTP").next().unwrap()));
            let from = range.unwrap_or(0);
            let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{told}connection: close\r\n\r\n",
                body.len() - from
            );
            stream.write_all(head.as_bytes()).unwrap();
            if first.starts_with("GET") {
                let rest = &body[from..];
                let part = if left > 0 { &rest[..rest.len() / 2] } else { rest };
                left = left.saturating_sub(1);
                // A client that goes away is its own affair.
                let _ = stream.write_all(part);
            }
        }
    });
    Server { address, asked }
}

fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of<'a>(url: &'a str, to: &'a Path) -> Fetch<'a> {
    Fetch { url, to, sha256: None, patience: PATIENCE }
}

#[test]
fn fetching_goes_on_where_it_broke_off() {
    let place = Place::default();
    let body: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let server = serve(body.clone(), digest(&body), 2);
    let to = place.path("got/file");
    fetch(&of(&format!("{}/a", server.address), &to)).unwrap();
    assert!(std::fs::read(&to).unwrap() == body);
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked, ["HEAD /a None", "GET /a None", "GET /a Some(200000)", "GET /a Some(300000)"]);
    assert_eq!(std::fs::read_dir(place.path("got")).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn part_of_an_older_version_is_not_gone_on_from() {
    let body =
        |version: u32| (0..1000 + version).flat_map(|n| (n * version).to_le_bytes()).collect::<Vec<u8>>();
    let told = |version: u32| format!("etag: \"{version}\"\r\n");
    for (first, second, goes_on) in [
        (told(1), told(1), true),
        (told(1), told(2), false),
        // Who tells nothing may have anything.
        (String::new(), String::new(), false),
    ] {
        let place = Place::default();
        let to = place.path("got/file");
        let server = serve_told(body(1), first.clone(), usize::MAX);
        fetch(&of(&server.address, &to)).unwrap_err();
        let version = if goes_on { 1 } else { 2 };
        let server = serve_told(body(version), second, 0);
        fetch(&of(&server.address, &to)).unwrap();
        assert!(std::fs::read(&to).unwrap() == body(version), "{first}");
        let asked = server.asked.lock().unwrap().clone();
        assert_eq!(!asked.contains(&"GET / None".to_owned()), goes_on, "{first}: {asked:?}");
    }
}

#[test]
fn file_that_was_damaged_on_the_way_is_not_kept() {
    let place = Place::default();
    let server = serve(b"damaged".to_vec(), digest(b"sound"), 0);
    let to = place.path("got/file");
    let error = fetch(&of(&server.address, &to)).unwrap_err().to_string();
    assert!(error.contains("SHA-256") && error.contains("not kept"), "{error}");
    assert_eq!(std::fs::read_dir(place.path("got")).unwrap().count(), 0);
}

/// A server that answers each GET with these bytes, and then is silent or hangs up.
fn answers(bytes: Vec<u8>, hangs_up: bool) -> String {
    answers_and_tells("200 OK", bytes, hangs_up)
}

/// The same, with the status that it answers where it is asked to tell of the file.
fn answers_and_tells(told: &'static str, bytes: Vec<u8>, hangs_up: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            lines.map(Result::unwrap).take_while(|line| !line.is_empty()).for_each(drop);
            if first.starts_with("HEAD") {
                let head = format!("HTTP/1.1 {told}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                continue;
            }
            let _ = stream.write_all(&bytes);
            if !hangs_up {
                silent.push(stream);
            }
        }
    });
    address
}

#[test]
fn answer_without_a_length_that_breaks_off_is_not_kept() {
    let place = Place::default();
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n4\r\nhalf\r\n";
    let address = answers(chunked.to_vec(), true);
    let to = place.path("got/file");
    let error = fetch(&of(&address, &to)).unwrap_err().to_string();
    assert!(error.contains("broke off after 4 bytes"), "{error}");
    assert!(!to.exists());
    let whole = [&chunked[..], b"0\r\n\r\n"].concat();
    fetch(&of(&answers(whole, true), &place.path("other/file"))).unwrap();
    assert_eq!(std::fs::read(place.path("other/file")).unwrap(), b"half");
}

#[test]
fn server_that_does_not_tell_of_a_file_is_asked_for_it() {
    let place = Place::default();
    let sends = |status: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody").into_bytes()
    };
    for told in ["403 Forbidden", "405 Method Not Allowed", "501 Not Implemented"] {
        let to = place.path(told);
        fetch(&of(&answers_and_tells(told, sends("200 OK"), true), &to)).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"body", "{told}");
    }
    let to = place.path("shut");
    let error = fetch(&of(&answers_and_tells("403 Forbidden", sends("403 Forbidden"), true), &to));
    assert!(error.unwrap_err().to_string().contains("the server answers 403"));
    let error = fetch(&of(&answers_and_tells("404 Not Found", sends("200 OK"), true), &to));
    assert!(error.unwrap_err().to_string().contains("the server answers 404") && !to.exists());
}

#[test]
fn server_that_falls_silent_is_given_up() {
    let place = Place::default();
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf";
    let address = answers(head.to_vec(), false);
    let to = place.path("got/file");
    let begun = Instant::now();
    // Longer than a busy machine keeps the server's own thread waiting.
    let error = fetch(&Fetch { patience: Duration::from_secs(3), ..of(&address, &to) }).unwrap_err();
    assert!(error.to_string().contains("broke off after 4 bytes"), "{error}");
    // One try with the usual patience would take as long.
    assert!(begun.elapsed() < PATIENCE && !to.exists(), "{:?}", begun.elapsed());
}

#[test]
fn file_that_several_want_at_once_is_fetched_once() {
    let place = Place::default();
    let body: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let server = serve(body.clone(), digest(&body), 0);
    let (url, to) = (format!("{}/a", server.address), place.path("got/file"));
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| fetch(&of(&url, &to)))).collect();
        all.into_iter().for_each(|one| one.join().unwrap().unwrap());
    });
    assert!(std::fs::read(&to).unwrap() == body);
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked.iter().filter(|line| line.starts_with("GET")).count(), 1, "{asked:?}");
    assert_eq!(std::fs::read_dir(place.path("got")).unwrap().count(), 1, "nothing is left beside it");
}

fn parquet_of(rows: &[&str]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type("message schema { required binary text (UTF8); }").unwrap());
    let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    let mut group = file.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(*row)).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.close().unwrap();
    bytes
}

#[test]
fn wikitext_is_fetched_by_its_name_once_and_trained_on() {
    let place = Place::default();
    let line = "a sentence of a text that is long enough to learn from .\n";
    let body = parquet_of(&[line; 50]);
    let server = serve(body.clone(), digest(&body), 0);
    let search = Search { folders: vec![], cache: place.path("cache"), mirror: server.address.clone() };
    let folder: PathBuf = find("wikitext-2", &search).unwrap();
    let asked = server.asked.lock().unwrap().len();
    assert_eq!(asked, 6, "three files, each asked about and fetched");
    assert_eq!(find("wikitext-2", &search).unwrap(), folder);
    assert_eq!(server.asked.lock().unwrap().len(), asked, "the second time it is there");

    let source =
        train::data::Source::Dataset { name: "wikitext-2".into(), split: None, field: "text".into() };
    assert_eq!(source.files(Split::Validation, &search).unwrap().len(), 1);
    let spec = std::fs::read_to_string(place.path("spec.ron")).unwrap();
    let data =
        "data: (train: Dataset(name: \"wikitext-2\"), validation: From(Dataset(name: \"wikitext-2\")))";
    let begin = spec.find("data: ").unwrap();
    let end = begin + spec[begin..].find(")),").unwrap() + 2;
    let spec = format!("{}{data}{}", &spec[..begin], &spec[end..]);
    std::fs::write(place.path("spec.ron"), spec.replace("context: 16", "context: 8")).unwrap();
    std::fs::remove_dir_all(place.path("cache")).unwrap();
    server.asked.lock().unwrap().clear();
    let mut command = place.command(&["--set", "steps=10", "--ranks", "2"]);
    command.env("LLMASOS_MIRROR", &server.address).env_remove("LLMASOS_DATASETS");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 6, "ranks that want the same fetch it once: {asked:?}");
}
