//! The operator's own list of incidents: a CSV file with the columns `node,start,end,kind`.
//!
//! Every fault is told with its line, all at once up to a bound, so that a file of a thousand lines is put
//! right in one go; and with a fault in it nothing of the file is used, since a model that has learned from
//! half of the incidents has learned that the others were health.

use std::fmt;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use super::track::Span;

/// Bytes of a file: a hundred for each line that is allowed.
pub const BYTES_MAX: usize = 10 << 20;
/// Incidents of a file: a fleet of 5,000 Nodes with one on each in a month.
pub const INCIDENTS_MAX: usize = 100_000;
/// Faults that are told; of the others only the number.
pub const FAULTS_MAX: usize = 50;
/// Characters of a kind.
const KIND_MAX: usize = 64;
/// Characters of a field that a fault repeats.
const SHOWN_MAX: usize = 40;

const COLUMNS: [&str; 4] = ["node", "start", "end", "kind"];

/// An incident that the operator reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The Node.
    pub node: NodeName,
    /// When; an end that is not known is the begin.
    pub span: Span,
    /// What it was, in the operator's words: at most 64 characters, none of them a control character.
    pub kind: String,
}

/// Something wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its line, from 1.
    pub line: u64,
    /// What, and what to do.
    pub problem: Problem,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is too large.
    #[error(
        "the file is larger than {BYTES_MAX} bytes; split it, or leave out what is before the history"
    )]
    TooLarge,
    /// There are too many incidents.
    #[error("there are more than {INCIDENTS_MAX} incidents; leave out what is before the history")]
    TooMany,
    /// There is nothing in the file.
    #[error("the file is empty; its first line must be `node,start,end,kind`")]
    Empty,
    /// The first line does not name the columns.
    #[error("the first line must name the columns node, start, end and kind, each once, got {0}")]
    Header(String),
    /// A line has too few or too many fields.
    #[error(
        "{found} fields where the first line has {expected}; a comma within a field needs quotes around it, and a quote must be closed"
    )]
    Fields {
        /// How many.
        found: usize,
        /// How many there are columns.
        expected: usize,
    },
    /// Bytes that are no UTF-8.
    #[error("`{0}` is no UTF-8; save the file as UTF-8")]
    NotUtf8(&'static str),
    /// There is no such Node in the history.
    #[error(
        "there was no Node {0} in the history; write its name as `kubectl get nodes` does, or take the line out"
    )]
    UnknownNode(String),
    /// Not a time.
    #[error(
        "`{column}` must be a time such as 2026-11-01T09:30:00Z or 2026-11-01T10:30:00+01:00, got {got}"
    )]
    Time {
        /// Which.
        column: &'static str,
        /// What stands there.
        got: String,
    },
    /// The end is before the begin.
    #[error("the incident ends before it starts; are `start` and `end` the wrong way round?")]
    Reversed,
    /// Nobody knows that yet.
    #[error("`{0}` is in the future")]
    Future(&'static str),
    /// The kind is too long or cannot be shown.
    #[error(
        "`kind` must have at most {KIND_MAX} characters and no line break or other control character"
    )]
    Kind,
}

/// Everything that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// In the order of lines, at most [`FAULTS_MAX`].
    pub told: Vec<Fault>,
    /// How many more there are.
    pub more: usize,
}

impl Faults {
    fn add(&mut self, line: u64, problem: Problem) {
        if self.told.len() < FAULTS_MAX {
            self.told.push(Fault { line, problem });
        } else {
            self.more += 1;
        }
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the list of incidents cannot be used")?;
        for fault in &self.told {
            write!(f, "\n  {fault}")?;
        }
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
        }
        Ok(())
    }
}

/// Reads a list of incidents from bytes that may be anything.
///
/// `known` says whether a Node was there in the history. Columns may stand in any order. What is wholly before
/// the history is of no use and no fault.
///
/// # Errors
///
/// [`Faults`]: everything that is wrong.
pub fn read(
    bytes: &[u8],
    known: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Result<Vec<Reported>, Faults> {
    let mut faults = Faults {
        told: Vec::new(),
        more: 0,
    };
    let mut reported = Vec::new();
    if bytes.len() > BYTES_MAX {
        faults.add(1, Problem::TooLarge);
        return Err(faults);
    }
    // Spreadsheets put a byte order mark before the first column's name.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes);
    let mut record = csv::ByteRecord::new();
    let mut places = None;
    // Reading from bytes in memory cannot fail, and fields of any number and encoding are taken; were there
    // an error all the same, it would be the end of what can be read.
    while let Ok(true) = reader.read_byte_record(&mut record) {
        let line = record.position().map_or(1, csv::Position::line);
        let Some(places) = &places else {
            match header(&record) {
                Ok(found) => places = Some(found),
                Err(problem) => {
                    faults.add(line, problem);
                    return Err(faults);
                }
            }
            continue;
        };
        if reported.len() >= INCIDENTS_MAX {
            faults.add(line, Problem::TooMany);
            break;
        }
        match incident(&record, places, &known, now) {
            Ok(incident) => reported.push(incident),
            Err(problems) => problems.into_iter().for_each(|one| faults.add(line, one)),
        }
    }
    if places.is_none() {
        faults.add(1, Problem::Empty);
    }
    if faults.told.is_empty() {
        Ok(reported)
    } else {
        Err(faults)
    }
}

/// Where the columns of [`COLUMNS`] are.
fn header(record: &csv::ByteRecord) -> Result<[usize; 4], Problem> {
    let names: Vec<String> = record
        .iter()
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .collect();
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    if sorted != ["end", "kind", "node", "start"] {
        return Err(Problem::Header(shown(&names.join(","))));
    }
    Ok(COLUMNS.map(|column| names.iter().position(|name| name == column).unwrap_or(0)))
}

fn incident(
    record: &csv::ByteRecord,
    places: &[usize; 4],
    known: &impl Fn(&str) -> bool,
    now: Timestamp,
) -> Result<Reported, Vec<Problem>> {
    if record.len() != COLUMNS.len() {
        return Err(vec![Problem::Fields {
            found: record.len(),
            expected: COLUMNS.len(),
        }]);
    }
    let mut problems = Vec::new();
    let mut texts = [""; 4];
    for ((text, place), column) in texts.iter_mut().zip(places).zip(COLUMNS) {
        match std::str::from_utf8(record.get(*place).unwrap_or_default()) {
            Ok(field) => *text = field.trim(),
            Err(_) => problems.push(Problem::NotUtf8(column)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let [node, start, end, kind] = texts;
    if !known(node) {
        problems.push(Problem::UnknownNode(shown(node)));
    }
    let mut time = |column: &'static str, text: &str| match text.parse::<Timestamp>() {
        Ok(at) if at > now => {
            problems.push(Problem::Future(column));
            None
        }
        Ok(at) => Some(at),
        Err(_) => {
            let got = shown(text);
            problems.push(Problem::Time { column, got });
            None
        }
    };
    let from = time("start", start);
    let to = if end.is_empty() {
        from
    } else {
        time("end", end)
    };
    if kind.chars().count() > KIND_MAX || kind.chars().any(char::is_control) {
        problems.push(Problem::Kind);
    }
    match (from, to) {
        (Some(from), Some(to)) if from > to => problems.push(Problem::Reversed),
        (Some(from), Some(to)) if problems.is_empty() => {
            let kind = if kind.is_empty() { "incident" } else { kind };
            return Ok(Reported {
                node: node.into(),
                span: Span { from, to },
                kind: kind.to_owned(),
            });
        }
        _ => {}
    }
    Err(problems)
}

/// A field as a fault shows it: quoted, escaped, and not as long as a hostile one may be.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-27T12:00:00Z".parse().unwrap()
    }

    fn read_from(bytes: &[u8]) -> Result<Vec<Reported>, Faults> {
        read(
            bytes,
            |node| ["worker-1", "worker,2"].contains(&node),
            now(),
        )
    }

    fn good(bytes: &[u8]) -> Vec<(String, String, String)> {
        let each = read_from(bytes).unwrap().into_iter();
        each.map(|one| {
            (
                one.node.to_string(),
                format!("{}/{}", one.span.from, one.span.to),
                one.kind,
            )
        })
        .collect()
    }

    #[test]
    fn files_as_people_and_spreadsheets_write_them() {
        let one = [(
            "worker-1".to_owned(),
            "2026-11-01T09:30:00Z/2026-11-01T10:00:00Z".to_owned(),
            "disk".to_owned(),
        )];
        for file in [
            "node,start,end,kind\nworker-1,2026-11-01T09:30:00Z,2026-11-01T10:00:00Z,disk\n",
            "\u{feff}node,start,end,kind\r\nworker-1,2026-11-01T09:30:00Z,2026-11-01T10:00:00Z,disk\r\n",
            "Node, Start, End, Kind\n worker-1 , 2026-11-01T10:30:00+01:00 ,2026-11-01 10:00:00Z,disk",
            "kind,end,start,node\n\"disk\",2026-11-01T10:00:00Z,2026-11-01T09:30:00Z,\"worker-1\"\n\n\n",
        ] {
            assert_eq!(good(file.as_bytes()), one, "{file:?}");
        }
        let quoted = good(b"node,start,end,kind\n\"worker,2\",2026-11-01T09:30:00Z,,\n");
        assert_eq!(quoted[0].0, "worker,2");
        assert_eq!(quoted[0].1, "2026-11-01T09:30:00Z/2026-11-01T09:30:00Z");
        assert_eq!(quoted[0].2, "incident");
        assert_eq!(good(b"node,start,end,kind\n"), []);
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let file = b"node,start,end,kind\n\
            worker-9,2026-11-01T09:30:00Z,,disk\n\
            worker-1,yesterday,2026-13-01T00:00:00Z,disk\n\
            worker-1,2026-11-01T09:30:00Z,2026-11-01T09:00:00Z,disk\n\
            worker-1,2026-11-01T09:30:00Z,2026-12-01T09:00:00Z,disk\n\
            worker-1,2026-11-01T09:30:00,,disk\n\
            worker-1,2026-11-01T09:30:00Z,\n\
            \xff\xfe,2026-11-01T09:30:00Z,,disk\n\
            worker-1,2026-11-01T09:30:00Z,,\"a\nb\"\n\
            worker-1,2026-11-01T09:30:00Z,,disk,more\n";
        let faults = read_from(file).unwrap_err();
        let told: Vec<String> = faults.told.iter().map(ToString::to_string).collect();
        let expected = [
            "line 2: there was no Node \"worker-9\" in the history",
            "line 3: `start` must be a time such as",
            "line 3: `end` must be a time such as",
            "line 4: the incident ends before it starts",
            "line 5: `end` is in the future",
            "line 6: `start` must be a time such as",
            "line 7: 3 fields where the first line has 4",
            "line 8: `node` is no UTF-8",
            "line 9: `kind` must have at most 64 characters",
            "line 11: 5 fields where the first line has 4",
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told} is not {expected}");
        }
    }

    #[test]
    fn a_file_that_is_no_list_is_refused_whole() {
        for (file, expected) in [
            (&b""[..], "the file is empty"),
            (b"\xef\xbb\xbf", "the file is empty"),
            (b"\n\n\n", "the file is empty"),
            (
                b"worker-1,2026-11-01T09:30:00Z,,disk\n",
                "the first line must name the columns",
            ),
            (b"node,start,end\n", "the first line must name the columns"),
            (
                b"node,start,end,kind,node\n",
                "the first line must name the columns",
            ),
            (
                b"node;start;end;kind\n",
                "the first line must name the columns",
            ),
            (
                b"\x89PNG\r\n\x1a\n\0\0\0",
                "the first line must name the columns",
            ),
            // A quote that is never closed takes the rest of the file with it.
            (
                b"node,start,end,kind\n\"worker-1,2026-11-01T09:30:00Z,,disk\nworker-1,a,b,c\n",
                "1 fields",
            ),
        ] {
            let text = read_from(file).unwrap_err().to_string();
            assert!(text.contains(expected), "{file:?}: {text}");
        }
    }

    #[test]
    fn there_is_a_bound_on_everything() {
        let faults = read_from(&vec![b'a'; BYTES_MAX + 1]).unwrap_err();
        assert_eq!(faults.told[0].problem, Problem::TooLarge);
        let line = "worker-1,2026-11-01T09:30:00Z,,disk\n";
        let file = |line: &str, n: usize| format!("node,start,end,kind\n{}", line.repeat(n));
        assert_eq!(
            read_from(file(line, INCIDENTS_MAX).as_bytes())
                .unwrap()
                .len(),
            INCIDENTS_MAX
        );
        let faults = read_from(file(line, INCIDENTS_MAX + 1).as_bytes()).unwrap_err();
        assert_eq!(faults.told[0].problem, Problem::TooMany);
        assert_eq!(faults.told[0].line, INCIDENTS_MAX as u64 + 2);
        let faults = read_from(file("x\n", 1_000).as_bytes()).unwrap_err();
        assert_eq!((faults.told.len(), faults.more), (FAULTS_MAX, 950));
        assert!(faults.to_string().ends_with("and 950 more"));
        let long = format!("{},2026-11-01T09:30:00Z,,disk\n", "w".repeat(100_000));
        let text = read_from(file(&long, 1).as_bytes())
            .unwrap_err()
            .to_string();
        assert!(text.len() < 300, "{text}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), header in any::<bool>()) {
            let mut file = if header { b"node,start,end,kind\n".to_vec() } else { Vec::new() };
            file.extend(bytes);
            match read_from(&file) {
                Ok(reported) => {
                    for one in reported {
                        prop_assert!(one.span.from <= one.span.to && one.span.to <= now());
                    }
                }
                Err(faults) => prop_assert!(!faults.told.is_empty()),
            }
        }
    }
}
