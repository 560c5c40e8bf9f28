use proptest::prelude::*;

use super::*;

const FRAMINGS: [Framing; 3] = [Framing::Raw, Framing::Line, Framing::Mesg];

/// Message number `n`, of about `size` bytes.
fn message(framing: Framing, n: usize, size: usize) -> Vec<u8> {
    let body = format!("{n}:").into_bytes().into_iter().chain(std::iter::repeat_n(b'x', size)).collect::<Vec<u8>>();
    match framing {
        Framing::Raw => body,
        Framing::Line => [&body[..], b"\n"].concat(),
        Framing::Mesg => {
            // A newline in a body ends nothing.
            let body = [&body[..], b"\n\n"].concat();
            let head = match n % 3 {
                0 => format!("DGRM {} 192.0.2.1:{n}\n", body.len()),
                1 => format!("CLOS 1000 {}\n", body.len()),
                _ => format!("TEXT {}\n", body.len()),
            };
            [head.into_bytes(), body].concat()
        }
    }
}

/// Hands over everything, in pieces of at most `piece`.
fn take_all(buffer: &mut ReplayBuffer, piece: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    while buffer.waiting() > 0 {
        taken.extend(take(buffer, piece));
    }
    taken
}

fn take(buffer: &mut ReplayBuffer, most: usize) -> Vec<u8> {
    let next = buffer.next();
    let piece = next[..next.len().min(most)].to_vec();
    buffer.mark_sent(piece.len());
    piece
}

#[test]
fn what_is_handed_over_is_counted_whatever_the_pieces() {
    for framing in FRAMINGS {
        let messages: Vec<Vec<u8>> = (0..7).map(|n| message(framing, n, n * 5)).collect();
        let all = messages.concat();
        for piece in 1..all.len() {
            for split in [0, 1, piece, all.len() / 2] {
                let mut buffer = ReplayBuffer::new(framing);
                buffer.push(&all[..split]);
                let mut taken = take_all(&mut buffer, piece);
                buffer.push(&all[split..]);
                taken.extend(take_all(&mut buffer, piece));
                assert_eq!(taken, all);
                let count = if framing == Framing::Raw { all.len() } else { messages.len() };
                assert_eq!(buffer.count(), count as u64, "{framing:?} in pieces of {piece}");
            }
        }
    }
}

#[test]
fn a_message_half_handed_over_goes_again_whole() {
    for framing in [Framing::Line, Framing::Mesg] {
        let (first, second) = (message(framing, 1, 10), message(framing, 2, 10));
        for handed in 0..=second.len() {
            let mut buffer = ReplayBuffer::new(framing);
            buffer.push(&[&first[..], &second].concat());
            take(&mut buffer, first.len() + handed);
            buffer.rewind_to_message();
            let whole = handed == second.len();
            assert_eq!(buffer.count(), 1 + u64::from(whole));
            assert_eq!(take_all(&mut buffer, 3), if whole { Vec::new() } else { second.clone() });
        }
    }
}

#[test]
fn whoever_says_what_it_has_goes_on_behind_it() {
    for framing in FRAMINGS {
        let messages: Vec<Vec<u8>> = (0..5).map(|n| message(framing, n, 4)).collect();
        for seen in 0..=5 {
            let mut buffer = ReplayBuffer::new(framing);
            buffer.push(&messages.concat());
            take_all(&mut buffer, 1000);
            let read = messages[..seen].concat().len();
            let number = if framing == Framing::Raw { read } else { seen };
            assert_eq!(buffer.resume(number as u64), Ok(()));
            assert_eq!(take_all(&mut buffer, 7), messages[seen..].concat(), "{framing:?} {seen}");
        }
    }
}

#[test]
fn nobody_has_read_what_was_never_handed_over() {
    for framing in FRAMINGS {
        let mut buffer = ReplayBuffer::new(framing);
        buffer.push(&message(framing, 1, 4));
        buffer.push(&message(framing, 2, 4));
        take(&mut buffer, 3);
        let most = buffer.count();
        assert_eq!(buffer.resume(most + 1), Err(Gap), "{framing:?}");
        take_all(&mut buffer, 1000);
        let most = buffer.count();
        assert_eq!(buffer.resume(most + 1), Err(Gap), "{framing:?}");
        // A plugin that goes back and later says that it has read on is believed: it may have.
        assert_eq!(buffer.resume(0), Ok(()));
        assert_eq!(buffer.resume(most), Ok(()));
        assert_eq!(buffer.waiting(), 0);
    }
}

#[test]
fn the_last_bytes_are_kept_and_further_back_is_a_gap() {
    for framing in FRAMINGS {
        let mut buffer = ReplayBuffer::new(framing);
        let messages: Vec<Vec<u8>> = (0..100).map(|n| message(framing, n, n % 7)).collect();
        for message in &messages {
            buffer.push(message);
            take_all(&mut buffer, 5);
            buffer.trim(50);
        }
        assert!((50..50 + 30).contains(&buffer.history()), "{framing:?} {}", buffer.history());
        assert_eq!(buffer.resume(0), Err(Gap));
        assert_eq!((buffer.waiting(), buffer.resume(buffer.count())), (0, Ok(())), "an error changes nothing");
        let kept = buffer.history();
        let back = if framing == Framing::Raw { 40 } else { 3 };
        assert_eq!(buffer.resume(buffer.count() - back), Ok(()));
        let again = take_all(&mut buffer, 9);
        assert!(messages.concat().ends_with(&again) && !again.is_empty() && again.len() <= kept);
    }
}

#[test]
fn a_message_longer_than_the_history_is_kept_while_it_is_the_last() {
    let mut buffer = ReplayBuffer::new(Framing::Mesg);
    let long = message(Framing::Mesg, 1, 5000);
    buffer.push(&long);
    take(&mut buffer, 4000);
    buffer.trim(100);
    buffer.rewind_to_message();
    assert_eq!(take_all(&mut buffer, 5000), long);
    buffer.trim(100);
    assert_eq!(buffer.resume(0), Ok(()));
    take_all(&mut buffer, 5000);
    buffer.push(&message(Framing::Mesg, 2, 200));
    take_all(&mut buffer, 5000);
    buffer.trim(100);
    assert_eq!((buffer.resume(0), buffer.resume(1)), (Err(Gap), Ok(())));
}

#[test]
fn without_a_number_it_goes_on_with_what_waits_and_counts_anew() {
    let mut buffer = ReplayBuffer::new(Framing::Line);
    buffer.push(b"one\ntwo\nthree\n");
    take(&mut buffer, 5);
    buffer.discard_sent();
    assert_eq!((buffer.count(), buffer.history()), (0, 0));
    assert_eq!(take(&mut buffer, 4), b"two\n");
    assert_eq!(buffer.resume(0), Ok(()));
    assert_eq!(take_all(&mut buffer, 100), b"two\nthree\n");
    assert_eq!(buffer.count(), 2);
}

#[test]
fn the_oldest_that_wait_are_dropped_whole() {
    let mut buffer = ReplayBuffer::new(Framing::Line);
    buffer.push(b"read\n");
    take_all(&mut buffer, 100);
    buffer.push(b"a\nbb\nccc\ndd");
    assert_eq!(buffer.drop_oldest(8), 5);
    assert_eq!(buffer.drop_oldest(1), 4, "what is not there whole stays");
    buffer.push(b"d\n");
    assert_eq!((take_all(&mut buffer, 100), buffer.count()), (b"ddd\n".to_vec(), 2));
    assert_eq!(buffer.resume(0), Ok(()));
    assert_eq!(take_all(&mut buffer, 100), b"read\nddd\n");

    let mut buffer = ReplayBuffer::for_datagrams(Framing::Raw);
    for datagram in [&b"read"[..], b"one", b"three", b"four"] {
        buffer.push(datagram);
    }
    take(&mut buffer, 6);
    buffer.rewind_to_message();
    assert_eq!((buffer.waiting(), buffer.drop_oldest(18), buffer.drop_oldest(17)), (18, 0, 3));
    assert_eq!((buffer.drop_oldest(12), buffer.drop_oldest(0)), (5, 4));
    buffer.push(b"five");
    assert_eq!(take_all(&mut buffer, 100), b"five");
    assert_eq!(buffer.resume(0), Ok(()));
    assert_eq!(take_all(&mut buffer, 100), b"readfive");
}

/// Datagrams of these lengths: the first has only `a`, the second only `b`.
fn datagrams(lengths: &[usize]) -> (ReplayBuffer, Vec<Vec<u8>>) {
    let mut buffer = ReplayBuffer::for_datagrams(Framing::Raw);
    let datagrams: Vec<Vec<u8>> =
        lengths.iter().zip((b'a'..=b'z').cycle()).map(|(&length, byte)| vec![byte; length]).collect();
    for datagram in &datagrams {
        buffer.push(datagram);
    }
    (buffer, datagrams)
}

#[test]
fn without_a_number_a_datagram_sent_in_part_goes_again_whole() {
    for sent in 0..=12 {
        let (mut buffer, all) = datagrams(&[3, 5, 0, 1, 3]);
        take(&mut buffer, sent);
        buffer.rewind_to_message();
        buffer.discard_sent();
        let mut end = 0;
        let rest = all.iter().skip_while(|datagram| {
            end += datagram.len();
            end <= sent
        });
        assert_eq!(take_all(&mut buffer, 2), rest.flatten().copied().collect::<Vec<u8>>(), "{sent} bytes were sent");
        assert_eq!((buffer.waiting(), buffer.resume(0)), (0, Ok(())));
    }
}

#[test]
fn a_plugin_that_counts_bytes_goes_on_in_the_middle_of_a_datagram() {
    let (mut buffer, all) = datagrams(&[3, 5, 4]);
    take(&mut buffer, 6);
    buffer.rewind_to_message();
    assert_eq!(buffer.resume(7), Err(Gap), "it was not sent");
    for seen in 0..=6 {
        assert_eq!(buffer.resume(seen), Ok(()));
        assert_eq!(buffer.next(), &all.concat()[seen as usize..]);
    }
    // What it has read in part is whole again for a plugin that does not count.
    assert_eq!(buffer.resume(5), Ok(()));
    buffer.discard_sent();
    assert_eq!(take_all(&mut buffer, 100), all[1..].concat());
}

#[test]
fn boundaries_of_datagrams_are_kept_and_counted_with_them() {
    let (mut buffer, _) = datagrams(&[1; 1000]);
    assert_eq!((buffer.waiting(), buffer.history()), (3000, 0));
    take(&mut buffer, 400);
    assert_eq!((buffer.waiting(), buffer.history()), (1800, 1200));
    buffer.trim(100);
    assert!((100..103).contains(&buffer.history()), "{}", buffer.history());
    assert_eq!((buffer.resume(365), buffer.resume(400)), (Err(Gap), Ok(())));
    buffer.drop_oldest(30);
    assert_eq!(buffer.waiting(), 30);
    take_all(&mut buffer, 7);
    buffer.trim(0);
    assert_eq!((buffer.waiting(), buffer.history(), buffer.resume(410)), (0, 0, Ok(())));
    let Boundaries::Datagrams { sent, waiting } = &buffer.boundaries else { panic!("no datagrams") };
    assert!(sent.is_empty() && waiting.is_empty());
    assert!(sent.capacity().max(waiting.capacity()) <= 4 * MAX_HEADER_LEN);
    // A push that is longer than any datagram loses nothing.
    buffer.push(&[7; 70_000]);
    assert_eq!(take_all(&mut buffer, 1000).len(), 70_000);
}

#[test]
fn a_burst_s_memory_is_given_back() {
    let mut buffer = ReplayBuffer::new(Framing::Raw);
    buffer.push(&[0; 1 << 20]);
    take_all(&mut buffer, usize::MAX);
    buffer.trim(1000);
    assert!(buffer.bytes.capacity() <= 4096, "{}", buffer.bytes.capacity());
}

proptest! {
    /// Whatever stands there, messages of ours or none: nothing panics, and what is handed over is what was pushed.
    #[test]
    fn nonsense_is_handed_over_as_it_is(
        framing in prop::sample::select(&FRAMINGS[..]),
        has_datagrams in any::<bool>(),
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                Just(b"TEXT 99999999999999999999\n".to_vec()),
                Just(b"BINA 18446744073709551615\n".to_vec()),
                Just(b"CLOS 1\n\n".to_vec()),
            ],
            0..20,
        ),
        step in 1..300_usize,
        seen in 0..40_u64,
    ) {
        let mut buffer = if has_datagrams { ReplayBuffer::for_datagrams(framing) } else { ReplayBuffer::new(framing) };
        let mut taken = Vec::new();
        for piece in &pieces {
            buffer.push(piece);
            taken.extend(take(&mut buffer, step));
            buffer.trim(100);
        }
        taken.extend(take_all(&mut buffer, step));
        prop_assert_eq!(&taken, &pieces.concat());
        if buffer.resume(seen).is_ok() {
            prop_assert!(taken.ends_with(&take_all(&mut buffer, step)));
        }
        buffer.rewind_to_message();
        buffer.drop_oldest(10);
        buffer.discard_sent();
    }
}
