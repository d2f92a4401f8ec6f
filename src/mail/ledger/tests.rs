use super::*;

fn record(number: u64, state: State) -> Record {
    Record {
        uidl: format!("u{number}").into_bytes().into(),
        state,
        gone: false,
        fetched: number,
        changed: number,
        size: number,
        octets: number,
        sha256: [0; 32],
        header: [0; 32],
        name: format!("{number}.Ux.host").into(),
    }
}

fn known(ledger: &Ledger) -> Vec<(u64, State)> {
    let mut known: Vec<_> = ledger.iter().map(|r| (r.fetched, r.state)).collect();
    known.sort_by_key(|k| k.0);
    known
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    (dir, path)
}

#[test]
fn the_last_record_counts() {
    let (_dir, path) = place();
    let mut ledger = Ledger::open(&path).unwrap();
    ledger
        .append(&[record(1, State::Fetched), record(2, State::Fetched)])
        .unwrap();
    ledger.append(&[record(1, State::Kept)]).unwrap();
    ledger.append(&[record(2, State::Forgotten)]).unwrap();
    assert!(ledger.named("2.Ux.host").is_none());
    let again = Ledger::open(&path).unwrap();
    for ledger in [&ledger, &again] {
        assert_eq!(known(ledger), [(1, State::Kept)]);
        assert_eq!(ledger.named("1.Ux.host").unwrap().state, State::Kept);
    }
}

#[test]
fn cut_anywhere_it_keeps_what_was_whole() {
    let (_dir, path) = place();
    let mut ledger = Ledger::open(&path).unwrap();
    ledger.append(&[record(1, State::Fetched)]).unwrap();
    ledger.append(&[record(2, State::Fetched)]).unwrap();
    let whole = fs::read(&path).unwrap();
    let line = record(1, State::Fetched).line().len();
    for cut in 0..=whole.len() {
        fs::write(&path, whole.get(..cut).unwrap()).unwrap();
        let mut ledger = Ledger::open(&path).unwrap();
        let lines = cut.saturating_sub(HEADER.len());
        let expected = lines / line;
        assert_eq!(known(&ledger).len(), expected, "{cut}");
        ledger.append(&[record(3, State::Fetched)]).unwrap();
        let again = Ledger::open(&path).unwrap();
        assert_eq!(known(&again).len(), expected + 1, "{cut}");
        assert_eq!(known(&again), known(&ledger));
    }
}

#[test]
fn a_rotten_record_takes_no_other_with_it() {
    let (_dir, path) = place();
    let mut ledger = Ledger::open(&path).unwrap();
    for number in 1..=3 {
        ledger.append(&[record(number, State::Fetched)]).unwrap();
    }
    let mut bytes = fs::read(&path).unwrap();
    let middle = HEADER.len() + record(1, State::Fetched).line().len() + 20;
    *bytes.get_mut(middle).unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(known(&ledger), [(1, State::Fetched), (3, State::Fetched)]);
}

#[test]
fn it_does_not_grow_for_ever() {
    let (_dir, path) = place();
    let mut ledger = Ledger::open(&path).unwrap();
    let flips: Vec<_> = (0..100).map(|_| record(1, State::Kept)).collect();
    for _ in 0..50 {
        ledger.append(&flips).unwrap();
    }
    let line = record(1, State::Kept).line().len() as u64;
    assert!(fs::metadata(&path).unwrap().len() < 1300 * line);
    assert_eq!(known(&Ledger::open(&path).unwrap()), [(1, State::Kept)]);
}

#[test]
fn what_is_not_a_ledger_is_not_touched() {
    let (_dir, path) = place();
    fs::write(&path, "ferryfs ledger 2\nx\n").unwrap();
    assert!(Ledger::open(&path).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"ferryfs ledger 2\nx\n");
}
