use super::*;

#[test]
fn helpers_spread_and_then_go_on() {
    let mut plan = Plan::of(0..80, 10, Order::Spread);
    assert_eq!(plan.take(None, None), Some(0..10));
    assert_eq!(plan.take(None, None), Some(40..50));
    assert_eq!(plan.take(None, None), Some(20..30));
    // Each goes on, up to where the next one began, and then where most is left.
    plan.stop(0);
    assert_eq!(plan.take(Some(10), None), Some(10..20));
    plan.stop(10);
    assert_eq!(plan.take(Some(20), None), Some(60..70));
    assert!(!plan.is_near(65) && !plan.is_moving());
    plan.advance(60, 60, None);
    assert!(plan.is_near(65) && !plan.is_near(75) && plan.serves(69));
    plan.wait(60, 60);
    assert!(!plan.is_near(65));
    // What was given up is taken again, from where it was left.
    plan.advance(40, 44, None);
    plan.put_back(40, 44);
    plan.stop(20);
    assert_eq!(plan.take(Some(30), None), Some(30..40));
    plan.stop(30);
    assert_eq!(plan.take(Some(40), None), Some(44..50));
    assert_eq!(plan.take(None, None), Some(50..60));
    assert_eq!(plan.take(None, None), Some(70..80));
    assert_eq!(plan.take(None, None), None);
}

#[test]
fn in_turn() {
    let mut plan = Plan::of(5..25, 10, Order::InTurn);
    assert_eq!(plan.take(None, None), Some(5..15));
    plan.put_back(5, 9);
    assert!(plan.running.is_empty());
    assert_eq!(plan.take(Some(15), None), Some(9..15));
    assert_eq!(plan.take(None, None), Some(15..25));
    assert_eq!(plan.parts(), 0);
}

#[test]
fn readers_wait_for_who_is_there_soon() {
    let mut plan = Plan::of(0..64 << 20, 32 << 20, Order::InTurn);
    let _ = plan.take(None, None);
    plan.advance(0, 0, Some(12 << 20));
    assert!(plan.is_near(1 << 20) && !plan.is_near(2 << 20));
    plan.advance(0, 0, Some(1 << 30));
    assert!(plan.is_near(7 << 20) && !plan.is_near(9 << 20));
}

#[test]
fn who_reads_in_sequence_waits_for_who_is_about_to_begin() {
    let mut plan = Plan::of(0..64 << 20, 32 << 20, Order::Sequence);
    let _ = plan.take(None, None);
    assert!(plan.is_near(3 << 20) && !plan.is_near(5 << 20));
    // As long as it does not move his own stream goes on.
    assert!(!plan.serves(3 << 20));
    plan.advance(0, 0, Some(2 << 20));
    assert!(plan.serves(1 << 20) && !plan.serves(3 << 20));
    plan.wait(0, 8 << 20);
    assert!(!plan.is_near(1 << 20) && plan.is_near(9 << 20) && !plan.serves(9 << 20));
}

const MB: u64 = 1 << 20;

/// Five helpers at parts of 48 MB from 16 MB on, the first one slow, and the reader at `position`.
fn five(parts: u64, position: u64, rate: u64) -> (Plan, Option<Own>) {
    let end = (16 + parts * 48) * MB;
    let mut plan = Plan::of(16 * MB..end, 48 * MB, Order::Sequence);
    for nth in 0..5 {
        let part = plan.take(None, None).map(|part| part.start);
        assert_eq!(part, Some((16 + nth * 48) * MB));
    }
    for nth in 0..5 {
        let speed = if nth == 0 { 4 } else { 20 };
        plan.advance((16 + nth * 48) * MB, (17 + nth * 48) * MB, Some(speed * MB));
    }
    let own = Own {
        position: position * MB,
        rate: rate * MB,
    };
    (plan, Some(own))
}

#[test]
fn who_has_nothing_else_to_do_takes_half_of_what_the_slowest_has_left() {
    let (mut plan, own) = five(5, 12, 80);
    plan.stop(64 * MB);
    let half = plan.take(Some(112 * MB), own);
    let middle = (17 + 64) * MB / 2;
    assert_eq!(half, Some(middle..64 * MB));
    assert_eq!(plan.advance(16 * MB, 18 * MB, Some(4 * MB)), Some(middle));
    assert_eq!(plan.advance(middle, middle, Some(MB)), Some(64 * MB));
    // The newcomer is the slowest now, and then what is left is too little, or soon here.
    assert_eq!(plan.take(None, own).map(|part| part.end), Some(64 * MB));
    for part in &mut plan.running {
        part.moves = true;
        part.rate = Some(200 * MB);
    }
    assert_eq!(plan.take(None, own), None);
    // One that waits for a connection keeps what it has.
    plan.wait(208 * MB, 210 * MB);
    plan.running.retain(|part| part.from == 208 * MB);
    assert_eq!(plan.take(None, own), None);
}

#[test]
fn what_the_reader_waits_for_is_shared_before_more_is_begun() {
    let (mut plan, own) = five(8, 16, 80);
    plan.stop(64 * MB);
    let half = plan.take(Some(112 * MB), own);
    assert_eq!(half.map(|part| part.end), Some(64 * MB));
    // He does not wait long: the next part.
    plan.advance(16 * MB, 18 * MB, Some(100 * MB));
    plan.stop(112 * MB);
    let next = plan.take(Some(160 * MB), own);
    assert_eq!(next.map(|part| part.start), Some(256 * MB));
}

#[test]
fn the_readers_own_stream_is_helped_too() {
    let mut plan = Plan::of(64 * MB..112 * MB, 48 * MB, Order::Sequence);
    let own = Own {
        position: 24 * MB,
        rate: 4 * MB,
    };
    let next = plan.take(None, Some(own));
    assert_eq!(next, Some(64 * MB..112 * MB));
    assert_eq!(plan.take(None, Some(own)), Some(44 * MB..64 * MB));
    assert_eq!(plan.take(None, Some(own)), Some(34 * MB..44 * MB));
    assert_eq!(plan.take(None, Some(own)), Some(29 * MB..34 * MB));
    assert_eq!(
        plan.take(None, Some(own)).map(|part| part.end),
        Some(29 * MB)
    );
    // What is left of it he soon has.
    let soon = Own {
        rate: 5 * MB,
        ..own
    };
    assert_eq!(plan.take(None, Some(soon)), None);
    // He is past what he had to do.
    let past = Own {
        position: 70 * MB,
        rate: MB,
    };
    assert_eq!(plan.take(None, Some(past)), None);
}

#[test]
fn where_few_go_on_they_begin_anew_with_what_is_needed_first() {
    let mut plan = Plan::of(64 * MB..304 * MB, 48 * MB, Order::Sequence);
    for nth in 0..3 {
        let _ = plan.take(None, None);
        let from = (64 + nth * 48) * MB;
        assert!(!plan.is_recalled(from));
        plan.advance(from, from + MB, Some(20 * MB));
    }
    let own = Own {
        position: 24 * MB,
        rate: 16 * MB,
    };
    plan.begin_anew(2, Some(own));
    for from in [64, 112, 160] {
        assert!(plan.is_recalled(from * MB));
        assert_eq!(plan.take(None, None), None, "too many are at work");
        plan.put_back(from * MB, (from + 2) * MB);
        if from == 112 {
            // Four megabytes before him, which he fetches meanwhile.
            let first = plan.take(None, Some(own)).map(|part| part.start / MB);
            assert_eq!(first, Some(28));
        }
    }
    let next = plan.take(None, Some(own));
    assert_eq!(next, Some(66 * MB..112 * MB));
    assert!(!plan.is_recalled(66 * MB));
    assert_eq!(plan.take(None, Some(own)), None);
}

#[test]
fn one_who_cannot_jump_is_near_to_all_that_comes() {
    let mut plan = Plan::of(0..1 << 40, 1 << 30, Order::FromStart);
    let _ = plan.take(None, None);
    plan.advance(0, 100, None);
    assert!(plan.is_near(1 << 39) && !plan.is_near(99));
}
