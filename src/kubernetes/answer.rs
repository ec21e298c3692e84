//! What the Eviction API's answers mean.
//!
//! Every line of the table below was met on a real API server or read in its source
//! (`pkg/registry/core/pod/storage/eviction.go` of Kubernetes 1.36, `apiserver` for the rest). The
//! HTTP status alone tells little: a budget and an overloaded server both say 429, two budgets say
//! 500 or even 2xx, and a 403 can be a missing role, a budget or a namespace on its way out.

use std::time::Duration;

use foreshock_core::drain::Answer;
use serde_json::Value;

use super::DryRun;
use super::text::clean;

/// A server's own `Retry-After` is believed up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// What the server says is kept up to so many letters.
const DETAIL_MAX: usize = 300;

/// An HTTP answer, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Header `Retry-After`, if it is a number of seconds.
    pub(super) retry_after: Option<Duration>,
    /// The body, if it is JSON; null otherwise.
    pub(super) body: Value,
    /// The body's beginning as text, where it is not JSON.
    pub(super) text: String,
}

impl Reply {
    pub(super) fn new(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        let json = serde_json::from_slice(body).ok();
        let text = if json.is_some() {
            String::new()
        } else {
            clean(
                &String::from_utf8_lossy(&body[..body.len().min(2000)]),
                DETAIL_MAX,
            )
        };
        Self {
            status,
            retry_after: retry_after
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs),
            body: json.unwrap_or(Value::Null),
            text,
        }
    }

    /// The code that counts: a 2xx whose body says `Failure` is none.
    pub(super) fn code(&self) -> u16 {
        if !(200..300).contains(&self.status) {
            return self.status;
        }
        if self.body["kind"] == "Status" && self.body["status"] == "Failure" {
            // A Status without a code, as for two budgets on one Pod, is a fault of the server.
            return self.body["code"]
                .as_u64()
                .and_then(|code| u16::try_from(code).ok())
                .filter(|code| *code >= 300)
                .unwrap_or(500);
        }
        self.status
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.code())
    }

    /// In the server's words, cleaned, never empty.
    pub(super) fn message(&self) -> String {
        let message = self.body["message"].as_str().unwrap_or(&self.text);
        let mut said = clean(message, DETAIL_MAX);
        for cause in self.causes() {
            let more = clean(cause["message"].as_str().unwrap_or_default(), DETAIL_MAX);
            if !more.is_empty() && !said.contains(&more) {
                said = clean(&format!("{said} ({more})"), 2 * DETAIL_MAX);
            }
        }
        if said.is_empty() {
            format!("HTTP status {}", self.code())
        } else {
            said
        }
    }

    fn causes(&self) -> impl Iterator<Item = &Value> {
        self.body["details"]["causes"]
            .as_array()
            .into_iter()
            .flatten()
    }

    fn has_cause(&self, reason: &str) -> bool {
        self.causes().any(|cause| cause["reason"] == reason)
    }

    fn says(&self, words: &str) -> bool {
        self.body["message"]
            .as_str()
            .is_some_and(|message| message.contains(words))
    }

    /// The longer of header and body; `None` for zero, which is no advice.
    pub(super) fn wait(&self) -> Option<Duration> {
        let body = self.body["details"]["retryAfterSeconds"]
            .as_u64()
            .map(Duration::from_secs);
        self.retry_after
            .max(body)
            .filter(|wait| !wait.is_zero())
            .map(|wait| wait.min(RETRY_AFTER_MAX))
    }
}

/// What an answer means where the Pod need not be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// That is the answer.
    Plain(Answer),
    /// The Pod may be gone, be another or be going already: read it. If it is still there, then this.
    ReadFirst(Answer),
}

/// What the server says to the eviction of the Pod `name`.
pub(super) fn meaning(reply: &Reply, name: &str) -> Meaning {
    use Meaning::{Plain, ReadFirst};
    let detail = reply.message();
    // KubeVirt and its like refuse in a webhook and move the work by themselves in the background.
    if reply.says("Eviction triggered evacuation") || reply.says("eviction in background") {
        return Plain(Answer::Accepted);
    }
    let by_admission = (reply.says("admission webhook") && reply.says("denied the request"))
        || (reply.says("ValidatingAdmissionPolicy") && reply.says("denied request"));
    if by_admission && !reply.is_success() {
        return Plain(Answer::WebhookDenied { detail });
    }
    match reply.code() {
        200..=299 => Plain(Answer::Accepted),
        401 => Plain(Answer::Failed {
            detail: format!("the credentials are not accepted: {detail}"),
        }),
        403 if reply.has_cause("NamespaceTerminating") => Plain(Answer::NamespaceTerminating),
        // Not about rights: the budget's allowance is negative, or it has too many disruptions that
        // its controller has not confirmed.
        403 if reply.body["details"]["kind"] == "poddisruptionbudget"
            || reply.says("pdb disruptions allowed is negative")
            || reply.says("DisruptedPods map too big") =>
        {
            ReadFirst(Answer::BlockedByBudget {
                detail,
                retry_after: reply.wait(),
            })
        }
        403 => Plain(Answer::Forbidden { detail }),
        404 if reply.body["details"]["name"] == name => Plain(Answer::Gone),
        // The route itself is missing: an API server without policy/v1, or a proxy in between.
        404 => ReadFirst(Answer::Failed { detail }),
        409 => ReadFirst(Answer::Failed { detail }),
        429 if reply.has_cause("DisruptionBudget") || reply.says("disruption budget") => {
            ReadFirst(Answer::BlockedByBudget {
                detail,
                retry_after: reply.wait(),
            })
        }
        // API priority and fairness, or the server's own limit of requests under way.
        429 | 503 => Plain(Answer::Throttled {
            retry_after: reply.wait(),
        }),
        500 if reply.says("more than one PodDisruptionBudget") => {
            Plain(Answer::OverlappingBudgets { detail })
        }
        // "couldn't update PodDisruptionBudget due to conflicts": nothing was evicted.
        504 if reply.says("PodDisruptionBudget") => ReadFirst(Answer::BlockedByBudget {
            detail,
            retry_after: Some(reply.wait().unwrap_or(Duration::from_secs(10))),
        }),
        // The server gave up waiting for itself; the eviction may have taken place.
        504 => ReadFirst(Answer::Lost { detail }),
        _ => Plain(Answer::Failed { detail }),
    }
}

/// What the server says to a dry run of the eviction of the Pod `name`. Nothing is read afterwards: no
/// eviction of ours can be on its way because of it.
pub(super) fn tried(reply: &Reply, name: &str) -> DryRun {
    // A webhook that declares side effects: the server does not ask it, and says nothing of the eviction.
    if reply.says("does not support dry run") {
        return DryRun::NoAnswer(reply.message());
    }
    let (Meaning::Plain(answer) | Meaning::ReadFirst(answer)) = meaning(reply, name);
    match answer {
        Answer::Accepted => DryRun::Allowed,
        Answer::BlockedByBudget { detail, .. }
        | Answer::OverlappingBudgets { detail }
        | Answer::WebhookDenied { detail }
        | Answer::Forbidden { detail } => DryRun::Refused(detail),
        Answer::NamespaceTerminating => DryRun::Refused(reply.message()),
        Answer::Throttled { retry_after } => DryRun::Busy(retry_after),
        Answer::Gone => DryRun::NoAnswer("it is gone meanwhile".to_owned()),
        Answer::Lost { detail } | Answer::Failed { detail } => DryRun::NoAnswer(detail),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failure(code: u16, message: &str, details: Value) -> Reply {
        let body = json!({"kind": "Status", "status": "Failure", "code": code, "message": message, "details": details});
        Reply::new(code, None, body.to_string().as_bytes())
    }

    fn cause(reason: &str, message: &str) -> Value {
        json!({"causes": [{"reason": reason, "message": message}]})
    }

    #[test]
    fn each_answer_of_the_eviction_api_is_told_from_the_others() {
        let check = |reply: Reply, expected: &str| {
            let meaning = format!("{:?}", meaning(&reply, "web-1"));
            assert!(
                meaning.contains(expected),
                "{reply:?} was taken for {meaning}"
            );
        };
        let success =
            |code: u16| Reply::new(code, None, br#"{"kind":"Status","status":"Success"}"#);
        check(success(201), "Plain(Accepted)");
        check(success(200), "Plain(Accepted)");
        check(Reply::new(201, None, b""), "Plain(Accepted)");
        check(
            failure(
                404,
                "pods \"web-1\" not found",
                json!({"name": "web-1", "kind": "pods"}),
            ),
            "Plain(Gone)",
        );
        check(
            failure(
                404,
                "the server could not find the requested resource",
                json!({}),
            ),
            "ReadFirst(Failed",
        );
        check(
            Reply::new(404, None, b"404 page not found"),
            "404 page not found",
        );
        check(
            failure(409, "the UID in the precondition does not match", json!({})),
            "ReadFirst(Failed",
        );
        check(
            failure(
                429,
                "Cannot evict pod as it would violate the pod's disruption budget.",
                cause(
                    "DisruptionBudget",
                    "The disruption budget web needs 2 healthy pods and has 2 currently",
                ),
            ),
            "ReadFirst(BlockedByBudget { detail: \"Cannot evict pod as it would violate the pod's disruption budget. (The disruption budget web needs 2 healthy pods and has 2 currently)\", retry_after: None",
        );
        let mut processed = cause(
            "DisruptionBudget",
            "The disruption budget web is still being processed by the server.",
        );
        processed["retryAfterSeconds"] = json!(10);
        check(
            failure(
                429,
                "Cannot evict pod as it would violate the pod's disruption budget.",
                processed,
            ),
            "retry_after: Some(10s)",
        );
        check(
            failure(429, "too many requests", json!({"retryAfterSeconds": 1})),
            "Plain(Throttled { retry_after: Some(1s)",
        );
        check(
            failure(429, "too many requests", json!({"retryAfterSeconds": 0})),
            "Plain(Throttled { retry_after: None",
        );
        check(
            Reply::new(
                429,
                Some("7"),
                b"Too many requests, please try again later.",
            ),
            "Throttled { retry_after: Some(7s)",
        );
        check(
            Reply::new(429, Some("soon"), b""),
            "Throttled { retry_after: None",
        );
        check(
            Reply::new(503, None, b"upstream connect error"),
            "Throttled",
        );
        check(
            failure(
                429,
                "admission webhook \"virt-launcher-eviction-interceptor.kubevirt.io\" denied the request: Eviction triggered evacuation of VMI \"a/b\"",
                json!({}),
            ),
            "Plain(Accepted)",
        );
        check(
            failure(
                500,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                json!({}),
            ),
            "OverlappingBudgets",
        );
        // The same inside a 2xx.
        check(Reply::new(200, None, br#"{"kind":"Status","status":"Failure","message":"This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}"#), "OverlappingBudgets");
        check(
            Reply::new(
                201,
                None,
                br#"{"kind":"Status","status":"Failure","code":429,"message":"busy"}"#,
            ),
            "Throttled",
        );
        check(
            failure(
                500,
                "Internal error occurred: failed calling webhook \"x\": timeout",
                json!({}),
            ),
            "Plain(Failed",
        );
        check(
            failure(
                504,
                "Timeout: couldn't update PodDisruptionBudget \"web\" due to conflicts",
                json!({"retryAfterSeconds": 10}),
            ),
            "BlockedByBudget",
        );
        check(
            failure(
                504,
                "Timeout: couldn't update PodDisruptionBudget \"web\" due to conflicts",
                json!({}),
            ),
            "Some(10s)",
        );
        check(
            failure(
                504,
                "Timeout: request did not complete within the allotted timeout",
                json!({}),
            ),
            "ReadFirst(Lost",
        );
        check(
            failure(
                403,
                "pods \"web-1\" is forbidden: User \"u\" cannot create resource \"pods/eviction\"",
                json!({}),
            ),
            "Plain(Forbidden",
        );
        check(
            failure(
                403,
                "unable to create new content in namespace shop because it is being terminated",
                cause("NamespaceTerminating", "namespace shop is being terminated"),
            ),
            "NamespaceTerminating",
        );
        check(
            failure(
                403,
                "poddisruptionbudgets.policy \"web\" is forbidden: pdb disruptions allowed is negative",
                json!({"kind": "poddisruptionbudgets"}),
            ),
            "ReadFirst(BlockedByBudget",
        );
        check(
            failure(
                403,
                "x is forbidden: DisruptedPods map too big - too many evictions not confirmed by PDB controller",
                json!({}),
            ),
            "ReadFirst(BlockedByBudget",
        );
        for code in [400, 403, 418, 500] {
            check(
                failure(
                    code,
                    "admission webhook \"guard.example.org\" denied the request: not on Fridays",
                    json!({}),
                ),
                "WebhookDenied",
            );
        }
        check(
            failure(
                422,
                "pods \"web-1\" is forbidden: ValidatingAdmissionPolicy 'guard' with binding 'guard' denied request: no",
                json!({}),
            ),
            "WebhookDenied",
        );
        check(failure(401, "Unauthorized", json!({})), "credentials");
        check(
            failure(
                400,
                "name in URL does not match name in Eviction object",
                json!({}),
            ),
            "Plain(Failed",
        );
        check(
            Reply::new(502, None, b"<html>\x1b[0m bad gateway"),
            "Plain(Failed { detail: \"<html> [0m bad gateway\"",
        );
        check(Reply::new(500, None, &[0xff, 0xfe, 0x00]), "Plain(Failed");
        check(
            Reply::new(500, None, br#"{"details":{"causes":7},"message":[]}"#),
            "HTTP status 500",
        );
    }

    #[test]
    fn of_header_and_body_the_longer_wait_is_honoured_within_reason() {
        let wait = |header: Option<&str>, body: u64| {
            let body = json!({"details": {"retryAfterSeconds": body}}).to_string();
            Reply::new(429, header, body.as_bytes())
                .wait()
                .map(|wait| wait.as_secs())
        };
        assert_eq!(wait(None, 0), None);
        assert_eq!(wait(Some("0"), 0), None);
        assert_eq!(wait(Some("3"), 10), Some(10));
        assert_eq!(wait(Some("30"), 10), Some(30));
        assert_eq!(wait(Some("999999999"), 1), Some(300));
    }
}
