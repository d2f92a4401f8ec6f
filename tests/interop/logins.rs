//! Many sessions, logged in as later ones are.

use std::fs;
use std::thread;

use super::Stage;

/// Readers side by side need as many sessions; those are logged in to at once, on each of the four.
pub(super) fn sent_at_once(stage: &Stage) {
    let contents: Vec<Vec<u8>> = (1..=6_u8).map(|n| vec![n; 3 << 20]).collect();
    for (number, content) in contents.iter().enumerate() {
        stage.put(&format!("{number}"), content);
    }
    thread::scope(|scope| {
        for (number, content) in contents.iter().enumerate() {
            let path = stage.path(&format!("{number}"));
            scope.spawn(move || assert!(fs::read(path).unwrap() == *content, "{number}"));
        }
    });
    let root = stage.mount.root();
    let status = stage
        .mount
        .ferryfs(&["status", root.to_str().unwrap(), "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let savings = status[0]["savings"].as_array().unwrap();
    assert!(
        savings.contains(&"logins sent at once: yes".into()),
        "{savings:?}"
    );
    let lost = &status[0]["totals"]["connections_lost"];
    assert_eq!(lost, 0, "{status:#}");
}
