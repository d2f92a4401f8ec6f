use super::*;

struct Place {
    _dir: tempfile::TempDir,
    ledger: Ledger,
}

fn ledger(records: &[Record]) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(&dir.path().join("ledger")).unwrap();
    ledger.append(records).unwrap();
    Place { _dir: dir, ledger }
}

fn record(uidl: &str, state: State) -> Record {
    Record {
        uidl: uidl.as_bytes().into(),
        state,
        gone: false,
        fetched: 1000,
        changed: 1000,
        size: 90,
        octets: 100,
        sha256: [0; 32],
        header: [0; 32],
        name: format!("1.{uidl}").into(),
    }
}

fn messages(uidls: &[&str]) -> Vec<Message> {
    let entries = uidls.iter().zip(1..).map(|(uidl, number)| Entry {
        number,
        uidl: Some(uidl.as_bytes().into()),
        size: Some(100),
    });
    identify(entries.collect())
}

fn ids(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|m| String::from_utf8_lossy(m.uidl.as_deref().unwrap()).into_owned())
        .collect()
}

#[test]
fn what_is_new_comes_newest_first() {
    let place = ledger(&[record("b", State::Fetched)]);
    let found = compare(&messages(&["a", "b", "c"]), &place.ledger, 2000);
    assert_eq!(ids(&found.unknown), ["c", "a"]);
    assert!(found.vanished.is_empty() && found.changed.is_empty() && !found.renumbered);
}

#[test]
fn equal_identities_are_one_message_only_if_sizes_agree() {
    let place = ledger(&[]);
    let mut twice = messages(&["a", "a"]);
    assert_eq!(ids(&compare(&twice, &place.ledger, 0).unknown), ["a"]);
    twice = identify(vec![
        Entry {
            number: 1,
            uidl: Some(b"a".as_slice().into()),
            size: Some(1),
        },
        Entry {
            number: 2,
            uidl: Some(b"a".as_slice().into()),
            size: Some(2),
        },
    ]);
    assert_eq!(
        ids(&compare(&twice, &place.ledger, 0).unknown),
        ["a#2", "a"]
    );
}

#[test]
fn of_equal_identities_only_the_one_that_was_fetched_is_deleted() {
    let place = ledger(&[record("a", State::Fetched)]);
    let doomed = deletions(
        &messages(&["a", "a"]),
        &place.ledger,
        ServerDelete::AfterFetch,
        0,
        |_| true,
    );
    let numbers: Vec<_> = doomed.iter().map(|(number, _)| *number).collect();
    // The other one may be another message: the next session looks at it.
    assert_eq!(numbers, [2]);
}

#[test]
fn an_identity_with_another_size_is_doubted() {
    let place = ledger(&[record("a", State::Fetched), record("b", State::Deleted)]);
    let mut listed = messages(&["a", "b"]);
    listed.first_mut().unwrap().octets = 7;
    let found = compare(&listed, &place.ledger, 0);
    assert!(found.unknown.is_empty());
    assert_eq!(ids(&found.doubtful), ["b", "a"]);
    let doomed = deletions(&listed, &place.ledger, ServerDelete::AfterFetch, 0, |_| {
        true
    });
    assert!(doomed.is_empty());
}

#[test]
fn renumbering_is_suspected_when_most_vanish_and_as_many_appear() {
    let known: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|u| record(u, State::Fetched))
        .collect();
    let place = ledger(&known);
    assert!(compare(&messages(&["x", "y", "c"]), &place.ledger, 0).renumbered);
    assert!(!compare(&messages(&["a", "b", "x"]), &place.ledger, 0).renumbered);
    assert!(!compare(&messages(&[]), &place.ledger, 0).renumbered);
}

#[test]
fn what_is_gone_is_noted_once_and_forgotten_late() {
    let mut old = record("k", State::Kept);
    old.gone = true;
    let place = ledger(&[
        record("f", State::Fetched),
        record("w", State::DeleteWanted),
        old,
    ]);
    let change = |now| {
        let mut changed: Vec<_> = compare(&[], &place.ledger, now)
            .changed
            .into_iter()
            .map(|r| (r.name, r.state, r.gone))
            .collect();
        changed.sort_by(|a, b| a.0.cmp(&b.0));
        changed
    };
    let gone = [
        ("1.f".into(), State::Fetched, true),
        ("1.w".into(), State::Deleted, true),
    ];
    assert_eq!(change(2000), gone);
    assert_eq!(change(1001 + FORGET_AFTER.as_secs()).len(), 3);
}

#[test]
fn deletions_follow_the_policy_and_spare_what_is_not_safe_here() {
    let place = ledger(&[
        record("here", State::Fetched),
        record("lost", State::Fetched),
        record("kept", State::Kept),
        record("wanted", State::DeleteWanted),
    ]);
    let listed = messages(&["here", "lost", "kept", "wanted", "unknown"]);
    let doomed = |policy, now| {
        let doomed = deletions(&listed, &place.ledger, policy, now, |n| n == "1.here");
        doomed.iter().map(|d| d.0).collect::<Vec<_>>()
    };
    let day = ServerDelete::After(Duration::from_secs(86_400));
    assert!(doomed(ServerDelete::Never, 9_999_999).is_empty());
    assert_eq!(doomed(ServerDelete::OnUnlink, 9_999_999), [4]);
    assert_eq!(doomed(ServerDelete::AfterFetch, 1000), [1, 3, 4]);
    assert_eq!(doomed(day, 1000), [4]);
    assert_eq!(doomed(day, 1000 + 86_400), [1, 3, 4]);
}

#[test]
fn a_mass_deletion_is_noticed() {
    assert!(!too_many(50, 60, ServerDelete::OnUnlink));
    assert!(too_many(51, 60, ServerDelete::OnUnlink));
    assert!(!too_many(200, 1000, ServerDelete::OnUnlink));
    assert!(too_many(201, 1000, ServerDelete::OnUnlink));
    assert!(!too_many(1000, 1000, ServerDelete::AfterFetch));
}
