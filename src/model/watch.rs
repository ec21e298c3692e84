//! The model file while the service runs: whether it says something new.
//!
//! A look costs one `stat` where nothing has changed. What is new is told by content, not by time: a file
//! that was only touched, or that a ConfigMap's symbolic link shows anew, is the same model.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::artifact::{Artifact, Limits, ModelError};

/// A model file, and what of it has been seen.
#[derive(Clone, Debug)]
pub struct WatchedFile {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// The content was read under this stamp once more, after the clock of the file system had moved on.
    settled: bool,
    /// SHA-256 of the content that was read last, good or bad.
    digest: Option<[u8; 32]>,
    /// What the system said last, where it did not let us read.
    unreadable: Option<String>,
}

/// What tells one state of a file from another without reading it, behind all symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// # Errors
    ///
    /// What the system says; and whatever is no plain file, since reading a pipe could take for ever.
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(std::io::Error::other("it is no plain file"));
        }
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl WatchedFile {
    /// A file of which nothing has been seen yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            stamp: None,
            settled: false,
            digest: None,
            unreadable: None,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the model, and remembers what was read.
    ///
    /// # Errors
    ///
    /// Those of [`Artifact::read`].
    pub fn load(&mut self, limits: &Limits) -> Result<Artifact, ModelError> {
        // Before the content: what is written in between shows as a change later.
        self.stamp = Stamp::of(&self.path).ok();
        self.settled = false;
        let bytes = limits
            .read(&self.path)
            .map_err(|source| self.read_error(source))?;
        self.digest = Some(Sha256::digest(&bytes).into());
        Artifact::parse(&bytes, limits)
    }

    /// Looks whether the file says something else than at the last look. `None` if it does not; an error is
    /// told once, until the content or the reason changes.
    pub fn look(&mut self, limits: &Limits) -> Option<Result<Artifact, ModelError>> {
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) => stamp,
            Err(source) => return self.not_readable(source).map(Err),
        };
        let known = self.stamp == Some(stamp);
        if known && self.settled {
            return None;
        }
        // Clocks of file systems are coarse: what is written in the same tick as our reading has the same
        // stamp. So a new stamp is read under once more, at the next look.
        self.settled = known;
        self.stamp = Some(stamp);
        let bytes = match limits.read(&self.path) {
            Ok(bytes) => bytes,
            Err(source) => return self.not_readable(source).map(Err),
        };
        self.unreadable = None;
        let digest = Some(Sha256::digest(&bytes).into());
        if self.digest == digest {
            return None;
        }
        self.digest = digest;
        Some(Artifact::parse(&bytes, limits))
    }

    /// Once it can be read again, it is looked at anew, whatever is in it.
    fn not_readable(&mut self, source: std::io::Error) -> Option<ModelError> {
        self.stamp = None;
        self.digest = None;
        let reason = source.to_string();
        let news = self.unreadable.as_ref() != Some(&reason);
        self.unreadable = Some(reason);
        news.then(|| self.read_error(source))
    }

    fn read_error(&self, source: std::io::Error) -> ModelError {
        ModelError::Read {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::built_in;
    use crate::model::testing::imported;

    fn look(file: &mut WatchedFile) -> Option<Result<String, String>> {
        file.look(&Limits::default()).map(|found| {
            found
                .map(|model| model.id())
                .map_err(|error| error.to_string())
        })
    }

    fn watched(path: &Path) -> WatchedFile {
        std::fs::write(path, built_in::BYTES).unwrap();
        let mut file = WatchedFile::new(path);
        file.load(&Limits::default()).unwrap();
        file
    }

    #[test]
    fn what_is_touched_or_copied_over_itself_is_nothing_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.json");
        let mut file = watched(&path);
        assert_eq!(look(&mut file), None);
        std::fs::write(&path, built_in::BYTES).unwrap();
        assert_eq!(look(&mut file), None);
        let beside = folder.path().join("beside.json");
        std::fs::write(&beside, built_in::BYTES).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        assert_eq!(look(&mut file), None);
        assert_eq!(look(&mut file), None);
    }

    #[test]
    fn another_model_is_seen_however_it_is_put_there() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("model.json"), imported());
        let mut file = watched(&path);
        // Renamed over it, which is atomic.
        other.write(&path).unwrap();
        assert_eq!(look(&mut file), Some(Ok(other.id())));
        assert_eq!(look(&mut file), None);
        // Written over it, within whatever tick the last look was.
        std::fs::write(&path, built_in::BYTES).unwrap();
        assert!(matches!(look(&mut file), Some(Ok(id)) if id.starts_with("synthetic")));
    }

    #[test]
    fn a_config_map_that_is_swapped_under_its_links_is_seen() {
        // As the kubelet does it: model.json → ..data/model.json, ..data → ..v1, and then ..data → ..v2.
        let folder = tempfile::tempdir().unwrap();
        let version = |name: &str, bytes: &[u8]| {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("model.json"), bytes).unwrap();
            let link = folder.path().join("..data_tmp");
            std::os::unix::fs::symlink(name, &link).unwrap();
            std::fs::rename(&link, folder.path().join("..data")).unwrap();
        };
        version("..v1", built_in::BYTES);
        let path = folder.path().join("model.json");
        std::os::unix::fs::symlink("..data/model.json", &path).unwrap();
        let mut file = WatchedFile::new(&path);
        file.load(&Limits::default()).unwrap();
        assert_eq!(look(&mut file), None);
        version("..v2", &imported().to_bytes().unwrap());
        assert_eq!(look(&mut file), Some(Ok(imported().id())));
        version("..v3", &imported().to_bytes().unwrap());
        assert_eq!(look(&mut file), None);
    }

    #[test]
    fn each_fault_is_told_once_and_a_file_that_is_back_is_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.json");
        let mut file = watched(&path);
        std::fs::write(&path, &built_in::BYTES[..1_000]).unwrap();
        let fault = look(&mut file).unwrap().unwrap_err();
        assert!(fault.contains("not a complete model file"), "{fault}");
        assert_eq!(look(&mut file), None);
        std::fs::remove_file(&path).unwrap();
        let fault = look(&mut file).unwrap().unwrap_err();
        assert!(fault.contains("cannot be read"), "{fault}");
        assert_eq!(look(&mut file), None);
        std::fs::create_dir(&path).unwrap();
        assert!(look(&mut file).unwrap().is_err(), "another reason");
        assert_eq!(look(&mut file), None);
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, built_in::BYTES).unwrap();
        assert!(matches!(look(&mut file), Some(Ok(_))));
        assert_eq!(look(&mut file), None);
    }
}
