//! Bad input through the real binary and the real socket: message, and exit code or status.

mod program;
mod requests;
mod service;

/// A configuration that watches only, asks nobody who answers, and listens where there is room. It ends
/// within `[prometheus]`.
const BASE: &str = "[listen]\naddress = \"127.0.0.1:0\"\n[kubernetes]\nenabled = false\n[prometheus]\nurl = \"http://127.0.0.1:1\"\ntimeout = \"1s\"\n";

/// Where Alertmanager delivers.
const HOOK: &str = "/webhook/alertmanager";
/// What Alertmanager may deliver.
const GOOD: &str = r#"{"version":"4","alerts":[]}"#;
