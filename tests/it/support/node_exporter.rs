//! A node_exporter of its own for one test. It tells of the machine that the tests run on.

use std::time::Duration;

use super::server::{Server, Workdir, listening};
use super::{bed_program, http};

/// A running node_exporter.
#[derive(Debug)]
pub(crate) struct NodeExporter {
    server: Server,
    address: String,
    // After the server: it is dropped last, when the log is whole.
    workdir: Workdir,
}

impl NodeExporter {
    pub(crate) async fn start(args: &[&str]) -> Self {
        let workdir = Workdir::new("node_exporter");
        let mut all = vec!["--web.listen-address=127.0.0.1:0".to_owned()];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let program = bed_program("node_exporter");
        let mut server = Server::start("node_exporter", &program, all, &[], workdir.path());
        let client = http();
        let address = server
            .ready(Duration::from_secs(60), async |log| {
                let address = listening(log)?.to_string();
                let answer = client.get(format!("http://{address}/")).send().await.ok()?;
                answer.status().is_success().then_some(address)
            })
            .await;
        Self {
            server,
            address,
            workdir,
        }
    }

    /// `127.0.0.1:PORT`, as a scrape configuration wants its targets.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// The text of one scrape.
    pub(crate) async fn metrics(&self) -> String {
        http()
            .get(format!("http://{}/metrics", self.address))
            .send()
            .await
            .expect("node_exporter answers")
            .text()
            .await
            .expect("node_exporter answers with text")
    }
}
