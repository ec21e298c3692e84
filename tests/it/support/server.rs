//! One server process, and the folder with its files.
//!
//! It must not know which server it runs.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait_until;

/// How many lines of each log a failing test shows.
const TAIL: usize = 25;

/// Runs in front of every server. A watchdog in the server's process group reads the pipe whose other end
/// only the test process holds: each line is a signal to send to the server, and the end of the pipe, which
/// comes however the test process ends, kills the group. `PR_SET_PDEATHSIG` would not do: it follows the
/// *thread* that started the server, and the threads of a test's runtime end before their process.
const WATCHDOG: &str = r#"
exec 3<&0 </dev/null
{ while read -r signal <&3; do kill -s "$signal" $$ 2>/dev/null; done; kill -s KILL 0; } &
exec 3<&-
exec "$@"
"#;

/// A temporary folder for the files of one or more servers. When a test panics it is kept, and the ends of
/// the logs in it are shown.
#[derive(Debug)]
pub(crate) struct Workdir {
    name: String,
    dir: tempfile::TempDir,
}

impl Workdir {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("foreshock-{name}-"))
            .tempdir()
            .expect("a temporary folder can be made");
        Self {
            name: name.to_owned(),
            dir,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        let folder = path.parent().expect("a file in the folder has a parent");
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.dir.disable_cleanup(true);
        eprintln!("files of {}: {}", self.name, self.dir.path().display());
        let mut logs: Vec<PathBuf> = std::fs::read_dir(self.dir.path())
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().ends_with(".server.log"))
            .collect();
        logs.sort();
        for log in logs {
            eprintln!("the end of {}:\n{}", log.display(), tail(&read(&log)));
        }
    }
}

/// A running server process. Dropping it kills the process and everything that it started.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    folder: PathBuf,
    running: Option<Running>,
    /// Length of the log when the process that runs now was started.
    log_start: usize,
}

#[derive(Debug)]
struct Running {
    child: Child,
    watchdog: ChildStdin,
}

impl Server {
    /// Starts `program` in `folder`, with its output in `folder/NAME.server.log`.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        args: Vec<String>,
        env: &[(&str, &str)],
        folder: &Path,
    ) -> Self {
        let mut server = Self {
            name: name.to_owned(),
            program: program.to_owned(),
            args,
            env: env
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            folder: folder.to_owned(),
            running: None,
            log_start: 0,
        };
        server.start_again();
        server
    }

    /// Starts it again with the arguments it has; what ran before is killed.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        self.log_start = self.log_all().len();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log can be written to the temporary folder");
        let log_too = File::try_clone(&log).expect("a file handle can be copied");
        let mut child = Command::new("sh")
            .args(["-c", WATCHDOG, &self.name])
            .arg(&self.program)
            .args(&self.args)
            // What the user's own cluster or shell has set must not reach a test's server.
            .env_remove("KUBECONFIG")
            .env("HOME", &self.folder)
            .env("NO_COLOR", "1")
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.name));
        let watchdog = child.stdin.take().expect("stdin is piped, see above");
        self.running = Some(Running { child, watchdog });
    }

    pub(crate) fn args_mut(&mut self) -> &mut Vec<String> {
        &mut self.args
    }

    /// The process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.server.log", self.name))
    }

    /// What the process that runs now has written.
    pub(crate) fn log(&self) -> String {
        self.log_all().split_off(self.log_start)
    }

    /// What it has written in all its lives.
    pub(crate) fn log_all(&self) -> String {
        read(&self.log_path())
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.running.as_mut().and_then(|running| {
            running
                .child
                .try_wait()
                .expect("one's own child can be waited for")
        })
    }

    /// Sends a signal, by name: `TERM`, `STOP`, `CONT`, `HUP`.
    pub(crate) fn signal(&mut self, signal: &str) {
        let running = self
            .running
            .as_mut()
            .unwrap_or_else(|| panic!("{} does not run", self.name));
        running
            .watchdog
            .write_all(format!("{signal}\n").as_bytes())
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(&mut self, limit: Duration) -> ExitStatus {
        self.signal("TERM");
        let what = format!("{} ends after SIGTERM", self.name);
        let status = wait_until(&what, limit, async || {
            self.ended().ok_or_else(|| "it runs".into())
        })
        .await;
        self.kill();
        status
    }

    /// Ends it at once, and everything that it started.
    pub(crate) fn kill(&mut self) {
        let Some(Running {
            mut child,
            watchdog,
        }) = self.running.take()
        else {
            return;
        };
        // An error means that it has ended already.
        let _ = child.kill();
        drop(watchdog);
        let _ = child.wait();
    }

    /// Waits until `ask`, which is given the log, has an answer. A server that ends meanwhile will never
    /// have one: that is said at once, with the end of its log.
    pub(crate) async fn ready<T>(
        &mut self,
        limit: Duration,
        ask: impl AsyncFnMut(&str) -> Option<T>,
    ) -> T {
        self.ready_unless_ended(limit, ask)
            .await
            .unwrap_or_else(|| panic!("{} ended:\n{}", self.name, tail(&self.log())))
    }

    /// Like [`Self::ready`], with nothing when the server ends: it may have lost its port to another.
    pub(crate) async fn ready_unless_ended<T>(
        &mut self,
        limit: Duration,
        mut ask: impl AsyncFnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let what = format!("{} is ready, see {}", self.name, self.log_path().display());
        wait_until(&what, limit, async || {
            if self.ended().is_some() {
                return Ok(None);
            }
            let log = self.log();
            ask(&log).await.map(Some).ok_or_else(|| tail(&log))
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address in a log line such as `msg="Listening on" address=127.0.0.1:41873`. With several lines the
/// last one counts.
pub(crate) fn listening(log: &str) -> Option<std::net::SocketAddr> {
    log.lines().rev().find_map(|line| {
        let lower = line.to_lowercase();
        if !lower.contains("listening") {
            return None;
        }
        // Colours are switched off, but the quotes around a value are each logger's own choice.
        let (_, rest) = line.split_once("address=")?;
        let rest = rest.trim_start_matches('"');
        let end = rest
            .find(|c: char| c.is_whitespace() || c == '"')
            .unwrap_or(rest.len());
        let address: std::net::SocketAddr = rest[..end].parse().ok()?;
        (address.port() != 0).then_some(address)
    })
}

fn read(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::listening;

    #[test]
    fn the_last_address_that_a_log_names_is_where_the_server_listens() {
        let check = |log: &str, expected: Option<&str>| {
            let found = listening(log).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{log}");
        };
        check("starting\n", None);
        // Said before the kernel has chosen the port.
        check(
            "msg=\"Start listening for connections\" address=127.0.0.1:0",
            None,
        );
        check(
            "ts=1 level=info msg=\"Listening on\" address=127.0.0.1:41873\nts=2 msg=ready",
            Some("127.0.0.1:41873"),
        );
        check(
            "2026-11-01T12:00:00Z  INFO foreshock::web: listening address=127.0.0.1:5000 tls=false",
            Some("127.0.0.1:5000"),
        );
        check(
            "level=INFO msg=\"listening\" address=\"127.0.0.1:1\"\nmsg=listening address=[::1]:2",
            Some("[::1]:2"),
        );
    }
}
