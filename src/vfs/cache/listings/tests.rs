#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing
)]

use std::time::SystemTime;

use super::*;
use crate::vfs::attr::FileKind;

const TTL: Duration = Duration::from_secs(5);

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text.as_bytes()).unwrap()
}

fn file(size: u64) -> Attr {
    let mut attr = Attr::new(FileKind::File);
    attr.size = Some(size);
    attr
}

fn dir() -> Attr {
    Attr::new(FileKind::Directory)
}

fn entries(all: &[(&str, Attr)]) -> Arc<[DirEntry]> {
    let entry = |(name, attr): &(&str, Attr)| DirEntry {
        name: Name::new(name).unwrap(),
        attr: attr.clone(),
    };
    all.iter().map(entry).collect()
}

/// Lists `dir` at `now`.
fn list(listings: &mut Listings, dir: &str, all: &[(&str, Attr)], now: Instant) {
    let flight = listings.board(&path(dir));
    flight.listing.set(Ok(entries(all))).unwrap();
    listings.landed(&path(dir), &flight, now, now);
}

fn size(listings: &Listings, at: &str, now: Instant) -> Option<Option<u64>> {
    let (answer, _) = listings.known(&path(at), now)?;
    match answer {
        Ok(attr) => Some(attr.size),
        Err(err) => {
            assert_eq!(err.kind(), ErrorKind::NotFound);
            Some(None)
        }
    }
}

fn names(listings: &mut Listings, dir: &str, now: Instant) -> Option<Vec<String>> {
    let (entries, _) = listings.known_list(&path(dir), now)?;
    Some(entries.iter().map(|entry| entry.name.to_string()).collect())
}

#[test]
fn a_listing_answers_for_every_name_while_it_is_fresh() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    list(&mut listings, "d", &[("b", file(2)), ("a", file(1))], now);
    let later = now + Duration::from_secs(4);
    assert_eq!(size(&listings, "d/a", later), Some(Some(1)));
    assert_eq!(size(&listings, "d/b", later), Some(Some(2)));
    assert_eq!(size(&listings, "d/c", later), Some(None));
    let (_, left) = listings.known(&path("d/a"), later).unwrap();
    assert_eq!(left, Duration::from_secs(1));
    assert_eq!(size(&listings, "d/a", now + TTL), None);
    assert_eq!(size(&listings, "d/c", now + TTL), None);
    assert_eq!(names(&mut listings, "d", now + TTL), None);
}

#[test]
fn the_order_of_the_server_is_kept() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    list(&mut listings, "", &[("b", file(2)), ("a", file(1))], now);
    listings.put(&path("c"), file(3), now);
    listings.put(&path("b"), file(4), now);
    assert_eq!(names(&mut listings, "", now).unwrap(), ["b", "a", "c"]);
    assert_eq!(size(&listings, "b", now), Some(Some(4)));
}

#[test]
fn changes_are_entered_in_place() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    list(&mut listings, "", &[("a", file(1)), ("d", dir())], now);
    list(&mut listings, "d", &[("x", file(9))], now);
    listings.remove(&path("a"), now);
    assert_eq!(size(&listings, "a", now), Some(None));
    listings.rename(&path("d"), &path("e"), now);
    assert_eq!(names(&mut listings, "", now).unwrap(), ["e"]);
    assert_eq!(size(&listings, "d/x", now), None);
    listings.put_dir(&path("n"), dir(), now);
    assert_eq!(size(&listings, "n/anything", now), Some(None));
    assert_eq!(
        names(&mut listings, "n", now).unwrap(),
        Vec::<String>::new()
    );
    let change = SetAttr {
        mtime: Some(SystemTime::UNIX_EPOCH),
        mode: Some(0o700),
    };
    listings.set_attr(&path("n"), &change, now);
    let (attr, _) = listings.known(&path("n"), now).unwrap();
    assert_eq!(attr.unwrap().mode, Some(0o700));
}

#[test]
fn what_is_below_is_dropped_by_components() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    list(&mut listings, "foo", &[("x", file(1))], now);
    list(&mut listings, "foo/deep", &[("x", file(1))], now);
    list(&mut listings, "foobar", &[("x", file(1))], now);
    listings.rename(&path("foo"), &path("moved"), now);
    assert_eq!(size(&listings, "foo/x", now), None);
    assert_eq!(size(&listings, "foo/deep/x", now), None);
    assert_eq!(size(&listings, "foobar/x", now), Some(Some(1)));
}

#[test]
fn a_doubtful_name_is_asked_for_and_the_rest_of_its_listing_stays() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    list(&mut listings, "", &[("a", file(1)), ("b", file(2))], now);
    listings.doubt(&path("a"), now);
    for _ in 0..5 {
        assert!(matches!(listings.ask(&path("a"), now), Ask::Stat));
    }
    assert_eq!(size(&listings, "b", now), Some(Some(2)));
    assert_eq!(names(&mut listings, "", now), None);
    listings.answered(&path("a"), &Ok(file(7)), now);
    assert_eq!(names(&mut listings, "", now).unwrap(), ["a", "b"]);
    assert_eq!(size(&listings, "a", now), Some(Some(7)));
}

#[test]
fn two_names_are_asked_for_alone_and_the_third_lists() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    for name in ["d/a", "d/b"] {
        assert!(matches!(listings.ask(&path(name), now), Ask::Either));
        listings.answered(&path(name), &Ok(file(1)), now);
        assert!(matches!(listings.ask(&path(name), now), Ask::Known(_)));
    }
    assert!(matches!(listings.ask(&path("e/x"), now), Ask::Either));
    assert!(matches!(listings.ask(&path("d/c"), now), Ask::List));
    // Slowly enough, it never does.
    for i in 0..5 {
        let now = now + TTL * (i + 2);
        assert!(matches!(listings.ask(&path("d/c"), now), Ask::Either));
    }
}

#[test]
fn a_directory_that_cannot_be_listed_is_asked_name_by_name() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    let flight = listings.board(&path("d"));
    flight
        .listing
        .set(Err(ErrorKind::PermissionDenied.into()))
        .unwrap();
    listings.landed(&path("d"), &flight, now, now);
    for _ in 0..5 {
        assert!(matches!(listings.ask(&path("d/x"), now), Ask::Stat));
    }
}

#[test]
fn a_directory_listed_just_now_exists() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    list(&mut listings, "", &[("d", dir()), ("f", file(1))], now);
    let later = now + Duration::from_secs(4);
    list(&mut listings, "d", &[], later);
    let (answer, left) = listings
        .known(&path("d"), now + Duration::from_secs(6))
        .unwrap();
    assert!(answer.unwrap().is_dir());
    assert_eq!(left, Duration::from_secs(3));
    assert_eq!(size(&listings, "f", now + Duration::from_secs(6)), None);
}

#[test]
fn a_listing_overtaken_by_a_change_is_not_kept() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    let flight = listings.board(&path(""));
    listings.put(&path("new"), file(1), now);
    listings.changes.note(&path("new"));
    flight.listing.set(Ok(entries(&[]))).unwrap();
    assert!(
        !Arc::ptr_eq(&flight, &listings.board(&path(""))),
        "who asks after the change must not get an answer from before it"
    );
    listings.landed(&path(""), &flight, now, now);
    assert_eq!(size(&listings, "new", now), Some(Some(1)));
    assert_eq!(names(&mut listings, "", now), None);
}

#[test]
fn what_took_long_to_come_is_relied_on_for_as_long_again() {
    let mut listings = Listings::new(TTL, 100);
    let asked = Instant::now();
    let flight = listings.board(&path("d"));
    flight.listing.set(Ok(entries(&[("a", file(1))]))).unwrap();
    let came = asked + Duration::from_secs(20);
    listings.landed(&path("d"), &flight, asked, came);
    let until = came + Duration::from_secs(20) + TTL;
    let (before, after) = (Duration::from_millis(1), Duration::from_millis(1));
    assert_eq!(size(&listings, "d/a", until - before), Some(Some(1)));
    assert_eq!(size(&listings, "d/a", until + after), None);
}

#[test]
fn a_directory_larger_than_all_that_is_kept_stays_beside_the_one_it_is_in() {
    let mut listings = Listings::new(TTL, 10);
    let now = Instant::now();
    let names: Vec<_> = (0..21).map(|n| format!("f{n}")).collect();
    let all: Vec<_> = names.iter().map(|name| (&**name, file(1))).collect();
    list(&mut listings, "d", &all[..20], now);
    list(&mut listings, "", &[("d", dir())], now);
    assert!(matches!(listings.ask(&path("d"), now), Ask::Known(_)));
    assert_eq!(size(&listings, "d/f19", now), Some(Some(1)));
    // But not without bound, and what is too large is asked for name by name.
    list(&mut listings, "e", &all[..20], now);
    list(&mut listings, "g", &all, now);
    assert!(listings.weight <= 10);
    assert_eq!(size(&listings, "d/f19", now), None);
    for _ in 0..5 {
        assert!(matches!(listings.ask(&path("g/f0"), now), Ask::Stat));
    }
}

#[test]
fn memory_is_bounded_and_the_directory_used_last_stays() {
    let mut listings = Listings::new(TTL, 10);
    let now = Instant::now();
    let three = [("a", file(1)), ("b", file(2)), ("c", file(3))];
    for dir in ["d", "e"] {
        list(&mut listings, dir, &three, now);
    }
    assert!(matches!(listings.ask(&path("d/a"), now), Ask::Known(_)));
    list(&mut listings, "f", &three, now);
    assert!(listings.weight <= 10);
    assert_eq!(size(&listings, "e/a", now), None);
    assert_eq!(size(&listings, "d/a", now), Some(Some(1)));
    assert_eq!(size(&listings, "f/a", now), Some(Some(1)));
    for i in 0..100 {
        listings.answered(&path(&format!("one/{i}")), &Ok(file(1)), now);
        assert!(listings.weight <= 10);
    }
    let weight: usize = listings.dirs.values().map(|dir| dir.weight(10)).sum();
    assert_eq!(listings.weight, weight);
    assert_eq!(listings.by_use.len(), listings.dirs.len());
}

#[test]
fn of_two_of_the_largest_the_one_used_last_is_kept() {
    let mut listings = Listings::new(TTL, 100);
    let now = Instant::now();
    let names: Vec<_> = (0..200).map(|n| format!("f{n}")).collect();
    let all: Vec<_> = names.iter().map(|name| (&**name, file(1))).collect();
    for dir in ["d", "e"] {
        list(&mut listings, dir, &all, now);
    }
    assert_eq!(size(&listings, "d/f7", now), None);
    assert_eq!(size(&listings, "e/f7", now), Some(Some(1)));
    // Who compares two that are half as large has both.
    for dir in ["x", "y"] {
        list(&mut listings, dir, &all[..99], now);
    }
    for (dir, kept) in [("x", true), ("y", true), ("e", false)] {
        let known = size(&listings, &format!("{dir}/f7"), now);
        assert_eq!(known.is_some(), kept, "{dir}");
    }
    listings.remove(&path("x"), now);
    let there: usize = listings.dirs.values().map(Dir::size).sum();
    assert_eq!(listings.size, there);
}

#[test]
fn a_listing_too_large_to_keep_is_not_asked_for_again_and_again() {
    let mut listings = Listings::new(TTL, 1);
    let now = Instant::now();
    let four = ["a", "b", "c", "d"].map(|name| (name, file(1)));
    list(&mut listings, "big", &four, now);
    for _ in 0..5 {
        assert!(matches!(listings.ask(&path("big/a"), now), Ask::Stat));
    }
}

#[test]
fn nothing_is_kept_without_a_time_to_live() {
    let mut listings = Listings::new(Duration::ZERO, 100);
    let now = Instant::now();
    list(&mut listings, "", &[("a", file(1))], now);
    listings.put(&path("b"), file(1), now);
    listings.put_dir(&path("c"), dir(), now);
    assert!(listings.dirs.is_empty());
    for _ in 0..5 {
        assert!(matches!(listings.ask(&path("a"), now), Ask::Stat));
    }
}
