//! What of the past has been fetched, in a folder beside the model: whoever goes on after an interruption asks
//! for none of it again.
//!
//! `request.json` says what was asked for, `seen-*.json` what happened, `features-*.bin` what the features were:
//! a line of JSON, the values, and the checksum of both. Each file is there as a whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foreshock_core::node::{NodeName, Uid};
use foreshock_core::time::after;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::features::history::GRID;
use crate::features::{FeatureMatrix, Schema};
use crate::model::artifact::write_whole;

use super::archive::Seen;

/// Bytes of a checksum.
const SUM: usize = 32;
/// No file that is written here is longer: values of [`super::collect`]'s slices, with room for names.
const FILE_MAX: u64 = 256 << 20;

/// What was asked for. What is fetched for one request is of no use for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Digest of everything in configuration and command that decides what an answer is.
    pub asked: String,
    /// Digest of the schema.
    pub schema: String,
    /// Begin of the history, on the grid.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// How often exporters are scraped, in milliseconds.
    pub scrape_interval_ms: u64,
}

/// Why the folder is of no use.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// A file cannot be read or written.
    #[error("`{}` cannot be read or written; is there room, and may you write there? `--work` names another folder", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not as it was written.
    #[error("`{}` is damaged ({problem}); remove it and start again, which fetches it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder is somebody else's.
    #[error("`{}` holds other files; `--work` takes a folder that is empty, not there, or begun by an earlier training", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// What is there was fetched for something else.
    #[error("`{}` holds what was fetched for another training ({what} differs); finish that one, name another folder with `--work`, or remove this one", path.display())]
    Other {
        /// The folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Work {
    folder: PathBuf,
}

/// A slice of the features, as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    nodes: Vec<String>,
    uids: Vec<Option<String>>,
    points: Vec<Point>,
}

/// One matrix of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    at: Timestamp,
    /// Places of its Nodes.
    rows: Vec<u32>,
}

impl Work {
    /// The folder, made if it is not there. It will be emptied, so it must not hold anything else.
    ///
    /// # Errors
    ///
    /// [`WorkError::File`], [`WorkError::Foreign`].
    pub fn open(folder: PathBuf) -> Result<Self, WorkError> {
        let work = Self { folder };
        std::fs::create_dir_all(&work.folder).map_err(|source| work.failed(source))?;
        let (_, others) = work.files()?;
        if others > 0 {
            return Err(WorkError::Foreign { path: work.folder });
        }
        Ok(work)
    }

    /// Files of a training, whole ones and what an interrupted write has left; and how many others there are.
    fn files(&self) -> Result<(Vec<PathBuf>, usize), WorkError> {
        let (mut ours, mut others) = (Vec::new(), 0);
        for entry in std::fs::read_dir(&self.folder).map_err(|source| self.failed(source))? {
            let entry = entry.map_err(|source| self.failed(source))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let name = name.strip_prefix('.').unwrap_or(&name);
            let is_ours = ["request.json", "seen-", "features-"];
            if is_ours.iter().any(|begin| name.starts_with(begin)) {
                ours.push(entry.path());
            } else {
                others += 1;
            }
        }
        Ok((ours, others))
    }

    fn clear(&self) -> Result<(), WorkError> {
        for path in self.files()?.0 {
            std::fs::remove_file(&path).map_err(|source| WorkError::File { path, source })?;
        }
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> WorkError {
        WorkError::File {
            path: self.folder.clone(),
            source,
        }
    }

    /// What was asked for when the folder was begun; `None` if nothing was.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn request(&self) -> Result<Option<Request>, WorkError> {
        self.read_json("request.json")
    }

    /// Begins the folder with what is asked for. Slices that are there without a request are of another one.
    ///
    /// # Errors
    ///
    /// [`WorkError::File`].
    pub fn begin(&self, request: &Request) -> Result<(), WorkError> {
        self.clear()?;
        self.write_json("request.json", request)
    }

    /// That what is asked for now is what was asked for then, whenever that was.
    ///
    /// # Errors
    ///
    /// [`WorkError::Other`].
    pub fn is_for(&self, then: &Request, asked: &str, schema: &str) -> Result<(), WorkError> {
        let differs = if then.asked != asked {
            "one of `[prometheus]`, `--since`, `--until` and `--alert`"
        } else if then.schema != schema {
            "the schema of the features"
        } else {
            return Ok(());
        };
        Err(WorkError::Other {
            path: self.folder.clone(),
            what: differs,
        })
    }

    /// What happened from a time on; `None` if that has not been fetched.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn seen(&self, from: Timestamp) -> Result<Option<Seen>, WorkError> {
        let name = seen_name(from);
        let seen: Option<Seen> = self.read_json(&name)?;
        match seen {
            Some(seen) if seen.from != from => Err(WorkError::Damaged {
                path: self.folder.join(name),
                problem: "it is of another time".to_owned(),
            }),
            seen => Ok(seen),
        }
    }

    /// Keeps what happened.
    ///
    /// # Errors
    ///
    /// [`WorkError::File`].
    pub fn keep_seen(&self, seen: &Seen) -> Result<(), WorkError> {
        self.write_json(&seen_name(seen.from), seen)
    }

    /// Whether the features from a time on have been fetched.
    pub fn has_features(&self, from: Timestamp) -> bool {
        self.folder.join(features_name(from)).is_file()
    }

    /// Keeps the features of some time.
    ///
    /// # Errors
    ///
    /// [`WorkError::File`].
    pub fn keep_features(
        &self,
        from: Timestamp,
        matrices: &[FeatureMatrix],
    ) -> Result<(), WorkError> {
        let name = features_name(from);
        let bytes = packed(matrices).map_err(|error| WorkError::File {
            path: self.folder.join(&name),
            source: error.into(),
        })?;
        self.write(&name, &bytes)
    }

    /// The features of some time, as they were fetched: so many points of the grid from there on.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn features(
        &self,
        from: Timestamp,
        points: usize,
        schema: &Arc<Schema>,
    ) -> Result<Vec<FeatureMatrix>, WorkError> {
        let path = self.folder.join(features_name(from));
        let bytes = read_bounded(&path).map_err(|source| WorkError::File {
            path: path.clone(),
            source,
        })?;
        let matrices = unpacked(&bytes, schema).and_then(|matrices| {
            let at = (0..).map(|point: u32| after(from, GRID * point));
            let right = matrices.iter().zip(at).all(|(matrix, at)| matrix.at == at);
            if right && matrices.len() == points {
                Ok(matrices)
            } else {
                Err("it is of other times".to_owned())
            }
        });
        matrices.map_err(|problem| WorkError::Damaged { path, problem })
    }

    /// Removes what was fetched, and the folder: everything of it has become a model.
    ///
    /// # Errors
    ///
    /// [`WorkError::File`].
    pub fn finish(self) -> Result<(), WorkError> {
        self.clear()?;
        match std::fs::remove_dir(&self.folder) {
            // Somebody has put something there meanwhile: that is not ours to remove.
            Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                Err(self.failed(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn read_json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, WorkError> {
        let path = self.folder.join(name);
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(WorkError::File { path, source }),
        };
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|error| WorkError::Damaged {
            path,
            problem: error.to_string(),
        })
    }

    fn write_json<T: Serialize>(&self, name: &str, what: &T) -> Result<(), WorkError> {
        let bytes = serde_json::to_vec(what).map_err(|error| WorkError::File {
            path: self.folder.join(name),
            source: error.into(),
        })?;
        self.write(name, &bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), WorkError> {
        let path = self.folder.join(name);
        write_whole(&path, bytes).map_err(|source| WorkError::File { path, source })
    }
}

fn seen_name(from: Timestamp) -> String {
    format!("seen-{}.json", from.as_second())
}

fn features_name(from: Timestamp) -> String {
    format!("features-{}.bin", from.as_second())
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn packed(matrices: &[FeatureMatrix]) -> Result<Vec<u8>, serde_json::Error> {
    let mut places: BTreeMap<(&NodeName, Option<&Uid>), u32> = BTreeMap::new();
    let mut head = Head {
        nodes: Vec::new(),
        uids: Vec::new(),
        points: Vec::new(),
    };
    for matrix in matrices {
        let mut rows = Vec::with_capacity(matrix.nodes.len());
        for (node, uid) in matrix.nodes.iter().zip(&matrix.uids) {
            let next = places.len() as u32;
            let place = *places.entry((node, uid.as_ref())).or_insert(next);
            if place == next {
                head.nodes.push(node.to_string());
                head.uids
                    .push(uid.as_ref().map(|uid| uid.as_str().to_owned()));
            }
            rows.push(place);
        }
        head.points.push(Point {
            at: matrix.at,
            rows,
        });
    }
    let mut bytes = serde_json::to_vec(&head)?;
    bytes.push(b'\n');
    for matrix in matrices {
        bytes.extend(matrix.values.iter().flat_map(|value| value.to_le_bytes()));
    }
    let sum = Sha256::digest(&bytes);
    bytes.extend(sum);
    Ok(bytes)
}

fn unpacked(bytes: &[u8], schema: &Arc<Schema>) -> Result<Vec<FeatureMatrix>, String> {
    let body = bytes.len().checked_sub(SUM).ok_or("it is cut off")?;
    let (body, sum) = bytes.split_at(body);
    if Sha256::digest(body).as_slice() != sum {
        return Err("its checksum does not fit".to_owned());
    }
    let end = body.iter().position(|byte| *byte == b'\n');
    let (head, values) = body.split_at(end.ok_or("it has no first line")?);
    let head: Head = serde_json::from_slice(head).map_err(|error| error.to_string())?;
    let mut values = values[1..].chunks_exact(8).map(|chunk| {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        f64::from_le_bytes(eight)
    });
    let names: Vec<NodeName> = head.nodes.iter().map(|node| node.as_str().into()).collect();
    let uids = head.uids.iter();
    let uids: Vec<Option<Uid>> = uids
        .map(|uid| uid.as_ref().map(|uid| uid.as_str().into()))
        .collect();
    let mut matrices = Vec::with_capacity(head.points.len());
    for point in &head.points {
        let places = point.rows.iter().map(|row| *row as usize);
        let of = |place: usize| Some((names.get(place)?.clone(), uids.get(place)?.clone()));
        let rows: Option<Vec<_>> = places.map(of).collect();
        let (nodes, uids): (Vec<_>, Vec<_>) = rows.ok_or("a row is no Node's")?.into_iter().unzip();
        let n = nodes.len();
        let mut matrix = FeatureMatrix::missing(point.at, Arc::clone(schema), nodes);
        if matrix.nodes.len() != n {
            return Err("a Node is there twice".to_owned());
        }
        matrix.uids = uids;
        for value in &mut matrix.values {
            *value = values.next().ok_or("values are missing")?;
        }
        matrices.push(matrix);
    }
    match values.next() {
        None => Ok(matrices),
        Some(_) => Err("it has more values than rows".to_owned()),
    }
}
