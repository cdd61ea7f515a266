//! The files of a model, open for reading.
//!
//! A name can come to mean another file at any moment. So a model is opened once, and what its header says, what its digest
//! is and what is loaded are of these open files: the daemon opens and checks them, and the worker inherits their
//! descriptors. The names are kept for what people read.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use syscalls::Errno;

use crate::gguf::{GgufError, Header, TensorInfo, check_runnable, read_open, read_part};
use crate::sim::SCHEME;
use crate::wire::{DriverFault, LoadRequest};

/// Files that a model may be split into.
const PARTS_MAX: u32 = 512;

/// The descriptors of the standard streams, which are never a model's.
const STREAMS: std::ops::RangeInclusive<RawFd> = 0..=2;

/// One file of a model.
#[derive(Debug)]
struct Part {
    name: PathBuf,
    file: File,
}

/// The files of a model: one, or the parts of one in their order.
#[derive(Debug)]
pub struct ModelFiles(Vec<Part>);

/// What the headers of a model's files say.
#[derive(Debug)]
pub struct Headers {
    /// That of the first file, which is the model's.
    pub first: Header,
    /// The tensors of all other files.
    pub others: Vec<TensorInfo>,
}

impl ModelFiles {
    /// Opens the files of a model by its name; none of a model without files.
    ///
    /// # Errors
    ///
    /// ENOENT, EACCES or EIO where one cannot be opened, EMFILE, ENOMEM or EAGAIN where the system has not enough for it now,
    /// ENOEXEC for what is no file. The sentence begins with the file's name.
    pub fn open(model: &str) -> Result<Option<ModelFiles>, DriverFault> {
        if model.starts_with(SCHEME) {
            return Ok(None);
        }
        let part = |name: PathBuf| match open_file(&name) {
            Ok(file) => Ok(Part { name, file }),
            Err(error) => Err(error.into_fault(&name)),
        };
        names_of(model).into_iter().map(part).collect::<Result<_, _>>().map(|parts| Some(ModelFiles(parts)))
    }

    /// The files that a worker is to load: those that it has inherited, or by name where it has inherited none.
    ///
    /// # Errors
    ///
    /// As [`ModelFiles::open`], and EINVAL where other descriptors were handed over than the model has files.
    pub fn of(request: &LoadRequest) -> Result<ModelFiles, DriverFault> {
        if request.files.is_empty() {
            let no_file = || DriverFault::new(Errno::EINVAL, format!("{} is no file", request.path));
            return ModelFiles::open(&request.path)?.ok_or_else(no_file);
        }
        let names = names_of(&request.path);
        if names.len() != request.files.len() {
            let (files, wanted) = (request.files.len(), names.len());
            let message = format!("{} has {wanted} files, and {files} were handed over", request.path);
            return Err(DriverFault::new(Errno::EINVAL, message));
        }
        let part = |(name, fd): (PathBuf, &RawFd)| match inherited(*fd) {
            Ok(file) => Ok(Part { name, file }),
            Err(error) => Err(GgufError::Io(error).into_fault(&name)),
        };
        names.into_iter().zip(&request.files).map(part).collect::<Result<_, _>>().map(ModelFiles)
    }

    /// The descriptors of all files, for whoever is to inherit them.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.0.iter().map(|part| part.file.as_raw_fd()).collect()
    }

    /// Each file with its name.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (&Path, &File)> {
        self.0.iter().map(|part| (part.name.as_path(), &part.file))
    }

    /// What the system says of the open files.
    ///
    /// # Errors
    ///
    /// It refuses to say it.
    pub fn metadata(&self) -> io::Result<Vec<Metadata>> {
        self.0.iter().map(|part| part.file.metadata()).collect()
    }

    /// The name of the first file.
    pub fn name(&self) -> &Path {
        &self.first().name
    }

    /// Reads the headers of all files, and checks that llama.cpp can run the model.
    ///
    /// # Errors
    ///
    /// EIO where one cannot be read, ENOEXEC where it is no model that can run, or no part of one. The sentence begins with
    /// the file's name.
    pub fn headers(&self) -> Result<Headers, DriverFault> {
        let read = || -> Result<Header, GgufError> {
            let header = read_open(&self.first().file)?;
            check_runnable(&header)?;
            self.check_parts(&header)?;
            Ok(header)
        };
        let first = read().map_err(|error| error.into_fault(self.name()))?;
        let mut others = Vec::new();
        for part in &self.0[1..] {
            let header = read_part(&part.file).map_err(|error| error.into_fault(&part.name))?;
            others.extend(header.tensors);
        }
        Ok(Headers { first, others })
    }

    /// A part that was renamed would be loaded alone, and lack what is in the others.
    fn check_parts(&self, header: &Header) -> Result<(), GgufError> {
        let (wanted, there) = (header.count("split.count").unwrap_or(1).max(1), self.0.len());
        if wanted == there as u64 {
            return Ok(());
        }
        Err(GgufError::NotRunnable(format!(
            "it says that it is one of {wanted} files, and by its name it is one of {there}; name them \
             NAME-00001-of-{wanted:05}.gguf and so on"
        )))
    }

    fn first(&self) -> &Part {
        self.0.first().expect("a model has at least one file")
    }
}

/// Opens a regular file. What is none may wait for ever, or do something, when it is opened.
fn open_file(name: &Path) -> Result<File, GgufError> {
    check_regular(&std::fs::metadata(name)?)?;
    // It may have become a pipe meanwhile.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(name)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

fn check_regular(about: &Metadata) -> Result<(), GgufError> {
    if about.is_file() {
        return Ok(());
    }
    let kind = if about.is_dir() { "a directory" } else { "no regular file" };
    Err(GgufError::NotRunnable(format!("it is {kind}; give a .gguf file")))
}

/// A file of one's own on what was inherited, which children of this process do not inherit.
fn inherited(fd: RawFd) -> io::Result<File> {
    if fd < 0 || STREAMS.contains(&fd) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: nothing in this process closes a descriptor that it does not own, and one that is not open is an error of
    // the first call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(File::from(borrowed.try_clone_to_owned()?))
}

fn names_of(model: &str) -> Vec<PathBuf> {
    parts_of(model).unwrap_or_else(|| vec![model.into()])
}

/// The parts of a model in several files, by llama.cpp's names (`…-00001-of-00003.gguf`); none of a model in one.
fn parts_of(model: &str) -> Option<Vec<PathBuf>> {
    let (stem, ending) = model.rsplit_once('.')?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, _) = stem.rsplit_once('-')?;
    let parts = count.parse::<u32>().ok().filter(|parts| (1..=PARTS_MAX).contains(parts))?;
    let name = |part| PathBuf::from(format!("{stem}-{part:05}-of-{count}.{ending}"));
    let names: Vec<PathBuf> = (1..=parts).map(name).collect();
    names.contains(&PathBuf::from(model)).then_some(names)
}

/// The number for programs of what the system refuses about a file.
pub fn errno_of(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => return Errno::EMFILE,
        Some(libc::ENOMEM) => return Errno::ENOMEM,
        Some(libc::EAGAIN | libc::EINTR) => return Errno::EAGAIN,
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        io::ErrorKind::PermissionDenied => Errno::EACCES,
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;
    use crate::gguf::random::Shape;

    fn folder() -> (tempfile::TempDir, impl Fn(&str) -> String) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_owned();
        (folder, move |name: &str| root.join(name).to_str().expect("UTF-8").to_owned())
    }

    fn names(model: &str) -> Vec<String> {
        names_of(model).into_iter().map(|name| name.to_str().expect("UTF-8").to_owned()).collect()
    }

    #[test]
    fn model_in_parts_is_all_of_its_files() {
        assert_eq!(names("/m/a.gguf"), ["/m/a.gguf"]);
        assert_eq!(names("/m/a-of-b.gguf"), ["/m/a-of-b.gguf"]);
        assert_eq!(names("/m/a-1-of-00002.gguf"), ["/m/a-1-of-00002.gguf"]);
        let parts = ["/m/a-00001-of-00002.gguf", "/m/a-00002-of-00002.gguf"];
        assert_eq!(names(parts[0]), parts);
        assert_eq!(names(parts[1]), parts, "named by whichever part");
    }

    #[test]
    fn file_that_is_open_stays_the_one_that_it_was() {
        let (_folder, path) = folder();
        std::fs::write(path("m"), "first").expect("writes");
        let files = ModelFiles::open(&path("m")).expect("opens").expect("it is a file");
        std::fs::write(path("n"), "other").expect("writes");
        std::fs::rename(path("n"), path("m")).expect("renames");
        let request = LoadRequest { path: path("m"), files: files.descriptors(), ..LoadRequest::default() };
        let taken = ModelFiles::of(&request).expect("it is inherited");
        let mut text = String::new();
        let (name, mut file) = taken.parts().next().expect("there is one");
        file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("reads");
        assert_eq!((text.as_str(), name), ("first", Path::new(&path("m"))));
        assert!(std::io::Write::write(&mut file, b"x").is_err(), "it is for reading alone");
    }

    #[test]
    fn what_is_no_file_is_refused_by_its_name_and_waits_for_nobody() {
        let (_folder, path) = folder();
        nix::unistd::mkfifo(path("pipe").as_str(), nix::sys::stat::Mode::S_IRWXU).expect("makes one");
        let fault = |name: &str| ModelFiles::open(&path(name)).expect_err("it is no file");
        let (pipe, none) = (fault("pipe"), fault("none"));
        assert!(pipe.errno == Errno::ENOEXEC && pipe.message.starts_with(&path("pipe")), "{pipe}");
        assert!(none.errno == Errno::ENOENT && none.message.starts_with(&path("none")), "{none}");
        assert!(ModelFiles::open("sim:").expect("it needs none").is_none());
    }

    #[test]
    fn descriptors_that_are_too_few_or_a_stream_are_refused() {
        let request = |files: &[RawFd], path: &str| LoadRequest {
            path: path.into(),
            files: files.into(),
            ..LoadRequest::default()
        };
        let fault = ModelFiles::of(&request(&[9], "/m/a-00001-of-00002.gguf")).expect_err("one is missing");
        assert!(fault.message.contains("2 files, and 1"), "{fault}");
        assert!(ModelFiles::of(&request(&[1], "/m/a.gguf")).is_err());
    }

    #[test]
    fn part_under_the_name_of_a_whole_model_is_refused() {
        let (_folder, path) = folder();
        Shape::preset("tiny")
            .expect("there is one")
            .write(Path::new(&path("m-00001-of-00002.gguf")))
            .expect("writes");
        std::fs::copy(path("m-00001-of-00002.gguf"), path("m-00002-of-00002.gguf")).expect("copies");
        let files = ModelFiles::open(&path("m-00001-of-00002.gguf")).expect("opens").expect("they are files");
        let fault = files.headers().expect_err("it is whole");
        assert!(fault.message.contains("one of 1 files") && fault.message.contains("one of 2"), "{fault}");
    }

    #[test]
    fn want_of_descriptors_and_memory_is_told_from_a_damaged_disk() {
        let errno = |number| errno_of(&io::Error::from_raw_os_error(number));
        assert_eq!(errno(libc::EMFILE), Errno::EMFILE);
        assert_eq!(errno(libc::ENFILE), Errno::EMFILE);
        assert_eq!(errno(libc::ENOMEM), Errno::ENOMEM);
        assert_eq!(errno(libc::EIO), Errno::EIO);
        assert_eq!(errno(libc::ENOENT), Errno::ENOENT);
    }
}
