use super::pace::{JUDGED, SLOW};
use super::*;

fn passing(dir: &tempfile::TempDir) -> Arc<Passing> {
    let path = dir.path().join("staged");
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    let file = Arc::new(options.open(&path).unwrap());
    Arc::new(Passing::new(&file, path, &Arc::default()))
}

fn here(passing: &Passing, from: u64, to: u64) -> Option<Vec<u8>> {
    match passing.next(from, to) {
        Next::Memory(chunk) => Some(chunk.as_slice().to_vec()),
        Next::File(_) => None,
    }
}

#[test]
fn a_piece_stays_until_it_is_sent_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (passing, pool) = (passing(&dir), Arc::default());
    let data = vec![7; LEAST];
    let end = LEAST as u64;
    assert!(!passing.take(0, &data[1..], &pool).unwrap(), "not aligned");
    if !passing.take(0, &data, &pool).unwrap() {
        // A filesystem without O_DIRECT.
        return;
    }
    assert!(passing.take(2 * end, &data, &pool).unwrap());
    assert_eq!(here(&passing, 3, 10), Some(vec![7; 7]));
    assert!(matches!(passing.next(end, 9 * end), Next::File(to) if to == 2 * end));
    passing.settle(u64::MAX).unwrap();
    assert!(here(&passing, 0, end).is_some(), "not sent yet");
    passing.sent(end);
    assert!(here(&passing, 0, end).is_none());
    assert!(here(&passing, 2 * end, 3 * end).is_some());
    passing.settle_for_change(&(2 * end..2 * end + 1)).unwrap();
    assert!(here(&passing, 2 * end, 3 * end).is_none());
    let mut found = vec![0; LEAST];
    passing.file.read_exact_at(&mut found, 2 * end).unwrap();
    assert_eq!(found, data);
}

#[test]
fn there_is_room_for_so_much_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (passing, pool) = (passing(&dir), Arc::default());
    let data = vec![7; AT_ONCE];
    let taken = (0..64).filter(|n| passing.take(n * AT_ONCE as u64, &data, &pool).unwrap());
    let taken = taken.count();
    assert!(taken == OF_ONE / AT_ONCE || taken == 0, "{taken}");
    passing.unwatched();
    passing.settle(u64::MAX).unwrap();
    assert_eq!(passing.room.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_writer_waits_for_a_place_while_they_come_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let (passing, pool) = (passing(&dir), Arc::default());
    let data = vec![7; AT_ONCE];
    let mut end = 0;
    let mut take = |passing: &Arc<Passing>| {
        let taken = passing.take(end, &data, &pool).unwrap();
        end += if taken { AT_ONCE as u64 } else { 0 };
        taken
    };
    while take(&passing) {}
    if passing.lock().all.is_empty() {
        return;
    }
    passing.settle(u64::MAX).unwrap();
    let sender = Arc::clone(&passing);
    let sends = std::thread::spawn(move || {
        std::thread::sleep(MOMENT / 4);
        sender.sent(AT_ONCE as u64);
    });
    passing.wait_for_place(5 * AT_ONCE as u64, AT_ONCE);
    sends.join().unwrap();
    assert!(take(&passing), "its end was awaited");
    passing.wait_for_place(5 * AT_ONCE as u64, AT_ONCE);
    assert!(
        passing.lock().in_vain && !take(&passing),
        "nothing was sent"
    );
    passing.sent(2 * AT_ONCE as u64);
    passing.settle(u64::MAX).unwrap();
    assert!(take(&passing));
    assert!(!passing.lock().in_vain, "there are places again");
    assert!(!passing.room.awaited.load(Ordering::Relaxed));
}

#[test]
fn what_the_disk_refuses_is_told_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("staged");
    File::create(&path).unwrap();
    // Nothing can be written to it, neither way.
    let file = Arc::new(File::open(&path).unwrap());
    let passing = Arc::new(Passing::new(&file, path, &Arc::default()));
    passing.lock().direct = Some(file);
    let (pool, data) = (Arc::default(), vec![7; LEAST]);
    assert!(passing.take(0, &data, &pool).unwrap());
    assert!(passing.settle(u64::MAX).is_err());
    assert!(passing.take(LEAST as u64, &data, &pool).is_err());
    assert!(passing.settle_for_change(&(0..1)).is_err());
}

/// As many as there are places for, none of them on disk.
fn full() -> Pieces {
    let piece = |nth: usize| Piece {
        offset: (nth * AT_ONCE) as u64,
        bytes: Chunk::new(vec![0; AT_ONCE]),
        on_disk: false,
        _taken: Taken(Arc::default(), 0),
    };
    let mut pieces = Pieces::default();
    pieces.all.extend((0..OF_ONE / AT_ONCE).map(piece));
    pieces
}

#[test]
fn a_disk_that_holds_its_writer_up_is_left_alone_for_longer_and_longer() {
    const SECOND: Duration = Duration::from_secs(1);
    let (mut pieces, next) = (full(), OF_ONE as u64);
    let waits = |pieces: &Pieces| pieces.is_full(next, AT_ONCE);
    pieces.judge(JUDGED - 1, SECOND);
    assert!(waits(&pieces), "too little to be judged by");
    pieces.judge(1, Duration::ZERO);
    assert!(!waits(&pieces), "found slow");
    assert_eq!(pieces.rests, next + REST);
    pieces.judge(SLOW / 4, SECOND / 2);
    assert_eq!(pieces.rests, next + 2 * REST, "found slow again");
    pieces.judge(SLOW, SECOND);
    assert_eq!(pieces.rests, next + 2 * REST, "quick");
    pieces.judge(SLOW / 4, SECOND / 2);
    assert_eq!(pieces.rests, next + REST, "slow for the first time");
    // Whoever waits for the network is not held up by the disk.
    let mut pieces = full();
    for piece in &mut pieces.all {
        piece.on_disk = piece.offset < next / 2;
    }
    pieces.judge(SLOW / 4, SECOND / 2);
    assert!(waits(&pieces) && pieces.rests == 0);
}

#[test]
fn a_disk_that_lags_is_left_alone_for_a_while() {
    let mut pieces = full();
    let tries = MOST_LAG / LAG + 1;
    for _ in 0..tries {
        assert!(pieces.is_full(0, AT_ONCE) && !pieces.has_place(0, AT_ONCE));
    }
    assert_eq!(pieces.rests, REST);
    pieces.all.clear();
    assert!(!pieces.has_place(REST - 1, AT_ONCE));
    assert!(pieces.has_place(REST, AT_ONCE));
}
