use super::*;

#[test]
fn the_table_reads_like_kubectl_describe() {
    let node = r#"{
        "node": "worker-03", "at": "2026-11-25T12:00:00Z", "risk": 0.8, "model_risk": 0.12, "band": "at_risk",
        "phase": "tainted", "since": "2026-11-25T11:57:00Z", "reach": "evict",
        "hold": {"reason": "drain_after", "detail": "at risk for 3m", "until": "2026-11-25T12:00:30Z", "lift": "time"},
        "holds": [
            {"reason": "drain_after", "detail": "at risk for 3m", "until": "2026-11-25T12:00:30Z", "lift": "time"},
            {"reason": "draining_max", "detail": "1 of 1 Nodes are draining: worker-05", "until": null, "lift": "a drain that ends"}
        ],
        "alerts": [{"name": "NodeOnFire", "fingerprint": "f", "floor": 0.8, "reach": "evict", "starts_at": "2026-11-25T11:56:00Z", "expires_at": "2026-11-25T16:56:00Z"}],
        "missing": 0.02, "reasons": ["alert NodeOnFire"], "zone": "zone-a", "pool": null, "drain": null,
        "uid": "u1", "ready": true, "cordoned": false, "taints": ["degradation=true:NoSchedule"],
        "features_at": "2026-11-25T11:59:30Z", "scraped_at": "2026-11-25T11:59:20Z",
        "contributions": [
            {"feature": "disk_await_write", "value": 0.084, "usual": 0.002, "contribution": 2.31, "unit": "seconds"},
            {"feature": "mem_used", "value": null, "usual": null, "contribution": -0.21, "unit": "ratio"}
        ],
        "plan": {
            "at": "2026-11-25T12:00:00Z", "node": "worker-03", "possible": true, "estimated_seconds": 30.1,
            "estimate": "at most", "impossible": [], "slow": [{"namespace": "shop", "name": "web-1", "reason": "may take 600 s to finish"}], "warnings": [{"namespace": "shop", "name": "web-1", "reason": "uses nvidia.com/gpu: what it has computed there may be lost"}], "daemon_sets": [],
            "pods": [{
                "namespace": "shop", "name": "web-1", "uid": "p", "disposition": "evict", "reason": null, "owner": "ReplicaSet/web",
                "pdb": "web", "headroom": 2, "pdb_detail": "", "dry_run": "allowed", "dry_run_detail": null, "dry_run_at": "2026-11-25T12:00:00Z", "surge": true, "surge_detail": null, "fits_on": ["worker-05", "worker-06"], "grace_seconds": 30, "volumes": [],
                "critical": false, "ready": true, "terminating_until": null
            }]
        },
        "plan_problem": null,
        "history": {"risk": [], "events": [{"id": "1-1", "at": "2026-11-25T11:57:00Z", "kind": "taint", "node": "worker-03", "pod": null, "message": "tainted\nby \u001b[31m", "reason": null}]},
        "of_a_later_version": {}
    }"#;
    let text = table(node.as_bytes()).expect("understood");
    let expected = "\
Name:         worker-03
UID:          u1
Risk:         0.8000 (at risk); the model alone says 0.1200
Phase:        tainted, since 3m0s ago
Reach:        evict (how far evidence and policy would go together)
Zone:         zone-a
Ready:        true
Taints:       degradation=true:NoSchedule
Telemetry:    scraped 40s ago; 2 % of the required features missing
Holds:
  drain_after  (primary)
    Why:        at risk for 3m
    Lifted by:  time
    When:       in 30s (2026-11-25T12:00:30Z)
  draining_max
    Why:        1 of 1 Nodes are draining: worker-05
    Lifted by:  a drain that ends
Reasons:
  alert NodeOnFire
Alerts:
  Name        Floor  Reach  Since     Expires
  ----        -----  -----  -----     -------
  NodeOnFire  0.8    evict  4m0s ago  in 4h56m (2026-11-25T16:56:00Z)
Contributions (log-odds; above zero raises the risk):
  Feature           Value    Usual  Contribution
  -------           -----    -----  ------------
  disk_await_write  84 ms    2 ms   +2.31
  mem_used          missing  -      -0.21
Drain plan (what a drain would do now):
  possible; 30 s, at most
  slow: shop/web-1 may take 600 s to finish
  note: shop/web-1 uses nvidia.com/gpu: what it has computed there may be lost
  shop/web-1 goes when a second Pod is Ready
  Namespace  Pod    Drain  Budget       Grace  Fits on         Dry run  Why
  ---------  ---    -----  ------       -----  -------         -------  ---
  shop       web-1  evict  web (2 now)  30 s   worker-05 (+1)  allowed
Events (since foreshock started, newest first):
  Age       Kind   Message
  ---       ----   -------
  3m0s ago  taint  tainted by  [31m
";
    assert_eq!(text, expected);
}

#[test]
fn spans_have_two_units_at_most() {
    for (seconds, text) in [
        (0, "0s"),
        (119, "119s"),
        (120, "2m0s"),
        (7_199, "119m59s"),
        (7_200, "2h0m"),
        (172_800, "2d0h"),
    ] {
        assert_eq!(span(seconds), text);
    }
}
