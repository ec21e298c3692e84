//! Our own log: text for people, JSON for machines, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::Log;

/// Begins to log as configured. A second call changes nothing.
pub fn start(log: &Log) {
    // kube's client logs every 5xx as an error; whether it is one is for the caller to say.
    let level = format!("kube_client=off,{}", log.level);
    let filter = EnvFilter::try_new(&level).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(colours);
    // The only failure is that somebody, a test, has begun before.
    let started = if log.json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    drop(started);
}
