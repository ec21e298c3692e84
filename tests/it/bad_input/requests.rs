//! Requests that are wrong: what the socket answers.

use serde_json::json;

use super::service::{metric, service};
use super::{GOOD, HOOK};
use crate::support::http;
use crate::support::server::Workdir;

/// One request to a running service.
struct Request {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Body,
    status: u16,
    /// What the answer has to say, all of it.
    says: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Body {
    None,
    Text(&'static str),
    /// So many bytes of a JSON list.
    Bytes(usize),
}

const JSON: (&str, &str) = ("content-type", "application/json");
const PROBLEM: &str = "\"type\":\"about:blank\"";

const REQUESTS: &[Request] = &[
    Request {
        name: "a webhook that is no JSON",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Text("alert! alert!"),
        status: 400,
        says: &[
            PROBLEM,
            "the body is not JSON: expected value at line 1 column 1",
        ],
    },
    Request {
        name: "an empty webhook",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::None,
        status: 400,
        says: &[PROBLEM, "the body is not JSON: EOF"],
    },
    Request {
        name: "a webhook of another shape",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Text("[1, 2]"),
        status: 400,
        says: &[PROBLEM, "the body is not what Alertmanager sends"],
    },
    Request {
        name: "a webhook without version",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Text(r#"{"alerts":[]}"#),
        status: 400,
        says: &[
            PROBLEM,
            "the body has no `version`; expected an Alertmanager webhook of version 4",
        ],
    },
    Request {
        name: "a webhook without alerts",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Text(r#"{"version":"4"}"#),
        status: 400,
        says: &[
            PROBLEM,
            "the body has no `alerts`; expected an Alertmanager webhook of version 4",
        ],
    },
    Request {
        name: "a webhook of 17 MiB",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Bytes(17 << 20),
        status: 413,
        says: &[
            PROBLEM,
            "the payload is larger than 16777216 bytes; set max_alerts in Alertmanager's webhook_config",
        ],
    },
    Request {
        name: "the webhook by GET",
        method: "GET",
        path: HOOK,
        headers: &[],
        body: Body::None,
        status: 405,
        says: &[PROBLEM, "this path does not take GET"],
    },
    Request {
        name: "the Nodes by DELETE",
        method: "DELETE",
        path: "/api/nodes",
        headers: &[],
        body: Body::None,
        status: 405,
        says: &[PROBLEM, "this path does not take DELETE"],
    },
    Request {
        name: "a webhook from a form",
        method: "POST",
        path: HOOK,
        headers: &[("content-type", "application/x-www-form-urlencoded")],
        body: Body::Text(GOOD),
        status: 415,
        says: &[PROBLEM, "application/json"],
    },
    Request {
        name: "a webhook without a type",
        method: "POST",
        path: HOOK,
        headers: &[],
        body: Body::Text(GOOD),
        status: 415,
        says: &[PROBLEM, "application/json"],
    },
    Request {
        name: "a webhook from somebody else's page",
        method: "POST",
        path: HOOK,
        headers: &[JSON, ("origin", "https://evil.example")],
        body: Body::Text(GOOD),
        status: 403,
        says: &[
            PROBLEM,
            "a page from `https://evil.example` may not do this; open foreshock's own page",
        ],
    },
    Request {
        name: "the switch from somebody else's page",
        method: "POST",
        path: "/api/monitoring/stop",
        headers: &[JSON, ("origin", "null")],
        body: Body::None,
        status: 403,
        says: &[PROBLEM, "a page from `null` may not do this"],
    },
    Request {
        name: "a webhook to a name that is not ours",
        method: "POST",
        path: HOOK,
        headers: &[JSON, ("host", "foreshock.evil.example")],
        body: Body::Text(GOOD),
        status: 403,
        says: &[
            PROBLEM,
            "host `foreshock.evil.example` is not known as a name of this server; if it is one, add it to ",
        ],
    },
    Request {
        name: "the switch where nothing is ever written",
        method: "POST",
        path: "/api/monitoring/stop",
        headers: &[JSON],
        body: Body::None,
        status: 503,
        says: &[
            PROBLEM,
            "without Kubernetes nothing is ever written (kubernetes.enabled is false)",
        ],
    },
    Request {
        name: "an unknown path",
        method: "GET",
        path: "/api/knodes",
        headers: &[],
        body: Body::None,
        status: 404,
        says: &[
            PROBLEM,
            "there is no `/api/knodes`; `GET /api/openapi.json` lists every path",
        ],
    },
    Request {
        name: "a path that climbs",
        method: "GET",
        path: "/assets/..%2f..%2fCargo.toml",
        headers: &[],
        body: Body::None,
        status: 404,
        says: &[PROBLEM],
    },
    Request {
        name: "an unknown Node",
        method: "GET",
        path: "/api/nodes/ghost",
        headers: &[],
        body: Body::None,
        status: 404,
        says: &[PROBLEM, "there is no Node `ghost`"],
    },
    Request {
        name: "the plan of an unknown Node",
        method: "GET",
        path: "/api/nodes/ghost/plan",
        headers: &[],
        body: Body::None,
        status: 404,
        says: &[PROBLEM, "there is no Node `ghost`"],
    },
    Request {
        name: "a limit that is no number",
        method: "GET",
        path: "/api/nodes?limit=lots",
        headers: &[],
        body: Body::None,
        status: 400,
        says: &[
            PROBLEM,
            "limit: must be a whole number from 1 to 10000, got `lots`",
            "\"parameter\":\"limit\"",
        ],
    },
    Request {
        name: "an unknown band",
        method: "GET",
        path: "/api/nodes?band=purple",
        headers: &[],
        body: Body::None,
        status: 400,
        says: &[
            PROBLEM,
            "band: must be one of healthy, caution, at_risk, unknown, got `purple`",
        ],
    },
    Request {
        name: "a misspelt parameter",
        method: "GET",
        path: "/api/events?nodes=worker-01",
        headers: &[],
        body: Body::None,
        status: 400,
        says: &[
            PROBLEM,
            "nodes: unknown parameter; known are after, node, kind, limit, order",
        ],
    },
    Request {
        name: "an event id that is none",
        method: "GET",
        path: "/api/events?after=yesterday",
        headers: &[],
        body: Body::None,
        status: 400,
        says: &[PROBLEM, "\"parameter\":\"after\""],
    },
];

fn bytes(size: usize) -> Vec<u8> {
    let mut body = vec![b' '; size];
    body[0] = b'[';
    body[size - 1] = b']';
    body
}

async fn ask(url: &str, request: &Request) -> Result<(), String> {
    let method = request.method.parse().expect("a method");
    let mut builder = http().request(method, format!("{url}{}", request.path));
    for (name, value) in request.headers {
        builder = builder.header(*name, *value);
    }
    builder = match request.body {
        Body::None => builder,
        Body::Text(text) => builder.body(text),
        Body::Bytes(size) => builder.body(bytes(size)),
    };
    let answer = builder
        .send()
        .await
        .map_err(|error| format!("{}: no answer: {error:?}", request.name))?;
    let status = answer.status().as_u16();
    let kind = answer.headers().get("content-type").cloned();
    let said = answer.text().await.unwrap_or_default();
    let unsaid: Vec<&&str> = request
        .says
        .iter()
        .filter(|text| !said.contains(**text))
        .collect();
    let is_problem = kind.is_some_and(|kind| kind == "application/problem+json");
    if status == request.status && unsaid.is_empty() && is_problem {
        return Ok(());
    }
    Err(format!(
        "{}: {status} (expected {}), problem+json: {is_problem}, not said: {unsaid:#?}\nit said: {said}",
        request.name, request.status
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_answers_bad_requests_with_problems_and_the_service_goes_on() {
    let workdir = Workdir::new("bad-requests");
    let foreshock = service(&workdir, "").await;
    let mut wrong = Vec::new();
    for request in REQUESTS {
        if let Err(problem) = ask(foreshock.url(), request).await {
            wrong.push(problem);
        }
    }
    println!("figure bad_inputs_socket {}", REQUESTS.len());
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        REQUESTS.len(),
        wrong.join("\n----\n")
    );
    let refused = "foreshock_webhook_requests_total{outcome=\"malformed\"}";
    assert_eq!(
        metric(&foreshock, refused).await,
        Some(5.0),
        "each is counted"
    );
    let (status, body) = foreshock
        .post_json(HOOK, &json!({"version": "4", "alerts": []}))
        .await;
    assert_eq!(status, 202, "after all that a good one is taken: {body}");
    assert!(!foreshock.log().contains("panicked"), "{}", foreshock.log());
}
