//! Lines in, entries out: nothing lost, nothing joined, sizes kept.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::file::LogFile;
use super::*;

/// A folder that goes when the test does.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("dyno-log-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn log(&self, max_bytes: u64, keep: u32) -> Log {
        let path = self.0.join("log");
        Log::open(config(path, max_bytes, keep)).unwrap()
    }

    /// All entries, oldest file first.
    fn entries(&self) -> Vec<String> {
        let files = self.files();
        files.iter().flat_map(|path| entries_of(path)).collect()
    }

    /// The files, oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let path = self.0.join("log");
        let files = folder::list(&path).unwrap();
        files
            .iter()
            .map(|file| folder::plain(&path, file.part))
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn config(path: PathBuf, max_bytes: u64, keep: u32) -> LogConfig {
    LogConfig {
        path,
        max_bytes,
        keep,
        max_age_ms: None,
        mode: LogMode::Block,
    }
}

/// Entries without their time, whose form is checked.
fn entries_of(path: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    assert!(text.is_empty() || text.ends_with('\n'), "cut short: {text}");
    text.lines()
        .map(|line| {
            let (stamp, rest) = line.split_once(' ').unwrap();
            assert_eq!(stamp.len(), STAMP, "{line}");
            stamp.parse::<Timestamp>().unwrap();
            rest.to_owned()
        })
        .collect()
}

/// What a follower makes of the entries of one stream: its bytes again, a
/// newline after each F.
fn joined(entries: &[String], stream: &str) -> String {
    let mut text = String::new();
    for entry in entries {
        let (of, rest) = entry.split_once(' ').unwrap();
        let (tag, piece) = rest.split_once(' ').unwrap();
        if of == stream {
            text.push_str(piece);
            text.push_str(if tag == "F" { "\n" } else { "" });
        }
    }
    text
}

#[test]
fn lines_are_written_once_they_are_whole() {
    let folder = Folder::new();
    let mut log = folder.log(1 << 20, 1);
    log.write(Stream::Stdout, b"one\ntwo\nthr", Moment::now());
    log.write(Stream::Stderr, b"error\n\n", Moment::now());
    assert_eq!(
        folder.entries(),
        [
            "stdout F one",
            "stdout F two",
            "stderr F error",
            "stderr F "
        ]
    );
    log.write(Stream::Stdout, b"ee\n", Moment::now());
    assert_eq!(folder.entries()[4], "stdout F three");
}

#[test]
fn a_prompt_is_written_after_a_second_and_ended_by_what_follows() {
    let folder = Folder::new();
    let mut log = folder.log(1 << 20, 1);
    let begin = Moment::now();
    log.write(Stream::Stdout, b"password: ", begin);
    let due = log.deadline().unwrap();
    assert_eq!(due, begin.steady + PATIENCE);
    let later = Moment {
        steady: due,
        ..begin
    };
    log.tick(later);
    assert_eq!(log.deadline(), None);
    assert_eq!(folder.entries(), ["stdout P password: "]);
    log.end_lines(later);
    assert_eq!(folder.entries(), ["stdout P password: ", "stdout F "]);
}

#[test]
fn a_line_without_newline_at_the_end_is_ended() {
    let folder = Folder::new();
    let mut log = folder.log(1 << 20, 1);
    log.write(Stream::Stderr, b"no newline", Moment::now());
    log.end_lines(Moment::now());
    log.end_lines(Moment::now());
    assert_eq!(folder.entries(), ["stderr F no newline"]);
}

#[test]
fn long_lines_are_cut_and_a_line_of_exactly_the_limit_is_not() {
    let folder = Folder::new();
    let mut log = folder.log(1 << 20, 1);
    for (length, tags) in [
        (CUT, "F"),
        (CUT + 1, "PF"),
        (3 * CUT, "PPF"),
        (3 * CUT + 1, "PPPF"),
    ] {
        let before = folder.entries().len();
        let mut line = vec![b'x'; length];
        line.push(b'\n');
        log.write(Stream::Stdout, &line, Moment::now());
        let written = folder.entries().split_off(before);
        let got: String = written.iter().map(|entry| &entry[7..8]).collect();
        assert_eq!(got, tags, "length {length}");
        let text: usize = written.iter().map(|entry| entry.len() - 9).sum();
        assert_eq!(text, length);
    }
}

#[test]
fn files_keep_their_size_and_number() {
    let folder = Folder::new();
    let mut log = folder.log(1000, 2);
    for number in 0..200 {
        log.write(
            Stream::Stdout,
            format!("{number}\n").as_bytes(),
            Moment::now(),
        );
    }
    let files = folder.files();
    let sizes: Vec<u64> = files
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .collect();
    assert_eq!(sizes.len(), 3, "{files:?}");
    assert!(sizes.iter().all(|&size| size <= 1000), "{sizes:?}");
    assert!(sizes[..2].iter().all(|&size| size > 900), "{sizes:?}");
    let link = fs::canonicalize(folder.0.join("log")).unwrap();
    assert_eq!(link, fs::canonicalize(&files[2]).unwrap());
    assert_eq!(folder.entries().last().unwrap(), "stdout F 199");
}

#[test]
fn with_nothing_to_keep_the_file_is_replaced() {
    let folder = Folder::new();
    let mut log = folder.log(100, 0);
    for number in 0..50 {
        log.write(
            Stream::Stdout,
            format!("{number}\n").as_bytes(),
            Moment::now(),
        );
    }
    assert_eq!(folder.files().len(), 1);
    assert_eq!(folder.entries().last().unwrap(), "stdout F 49");
}

#[test]
fn an_entry_larger_than_a_whole_file_is_written_all_the_same() {
    let folder = Folder::new();
    let mut log = folder.log(10, 3);
    log.write(Stream::Stdout, b"first\nsecond\n", Moment::now());
    assert_eq!(folder.entries(), ["stdout F first", "stdout F second"]);
}

#[test]
fn a_torn_last_line_of_an_earlier_monitor_is_ended() {
    let folder = Folder::new();
    let path = folder.0.join("log");
    let torn = "2026-11-22T15:00:00.000000000Z stdout F to";
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(torn.as_bytes()).unwrap();
    let mut log = folder.log(1 << 20, 1);
    log.write(Stream::Stdout, b"next\n", Moment::now());
    assert_eq!(folder.entries(), ["stdout F to", "stdout F next"]);
}

#[test]
fn an_unwritable_log_drops_counts_and_goes_on() {
    let full = LogFile::full(config(PathBuf::from("/dev/full"), 1 << 20, 1));
    let mut log = Log::to(Sink::Here(Entries::to(full)));
    let begin = Moment::now();
    log.write(Stream::Stdout, b"1\n2\n3\n", begin);
    log.write(Stream::Stdout, b"4\n", begin);
    assert_eq!(log.dropped(), 4);
}

#[test]
fn files_of_a_monitor_that_shifted_their_names_are_the_oldest() {
    let folder = Folder::new();
    for (name, text) in [("log.2", "one"), ("log.1", "two"), ("log", "three")] {
        let mut file = fs::File::create(folder.0.join(name)).unwrap();
        writeln!(file, "2026-11-22T15:00:00.000000000Z stdout F {text}").unwrap();
    }
    let mut log = folder.log(1 << 20, 4);
    log.write(Stream::Stdout, b"four\n", Moment::now());
    let expected = ["one", "two", "three", "four"].map(|text| format!("stdout F {text}"));
    assert_eq!(folder.entries(), expected);
    assert!(folder.0.join("log").is_symlink());
}

#[test]
fn what_is_older_than_it_is_kept_goes_and_a_compressed_file_gets_no_more() {
    let folder = Folder::new();
    let path = folder.0.join("log");
    for number in 1..=3 {
        folder
            .log(45, 9)
            .write(Stream::Stdout, b"x\n", Moment::now());
        let plain = folder::plain(&path, folder::Part::Numbered(number));
        fs::rename(plain, folder::compressed(&path, number)).unwrap();
    }
    let day = Duration::from_secs(24 * 3600);
    let file = fs::File::open(folder::compressed(&path, 2)).unwrap();
    let old = std::time::SystemTime::now() - 2 * day;
    file.set_modified(old).unwrap();
    let mut log = Log::open(LogConfig {
        max_age_ms: Some(24 * 3600 * 1000),
        ..config(path.clone(), 1 << 20, 9)
    })
    .unwrap();
    log.write(Stream::Stdout, b"new\n", Moment::now());
    let numbers: Vec<_> = folder::list(&path).unwrap();
    let numbers: Vec<_> = numbers.iter().map(|file| (file.part, file.plain)).collect();
    let numbered = folder::Part::Numbered;
    assert_eq!(
        numbers,
        [
            (numbered(1), false),
            (numbered(3), false),
            (numbered(4), true)
        ]
    );
    assert!(
        log.deadline().is_some(),
        "ages are looked at without output"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the output comes in pieces and however small the files are, a
    /// follower reads what the dyno wrote.
    #[test]
    fn no_byte_is_lost_or_moved(
        pieces in prop::collection::vec((any::<bool>(), "[a-z]{0,30}\n?[a-z]{0,9}", 0_usize..600), 1..30),
        max_bytes in 500_u64..9000,
    ) {
        let folder = Folder::new();
        let mut log = folder.log(max_bytes, 300);
        let (mut out, mut err) = (String::new(), String::new());
        for (is_out, piece, repeat) in &pieces {
            let text = piece.repeat(1 + repeat / 40);
            let stream = if *is_out { Stream::Stdout } else { Stream::Stderr };
            if *is_out { &mut out } else { &mut err }.push_str(&text);
            log.write(stream, text.as_bytes(), Moment::now());
        }
        log.end_lines(Moment::now());
        for (sent, stream) in [(out, "stdout"), (err, "stderr")] {
            let ended = match sent.as_bytes().last() {
                None | Some(b'\n') => sent,
                Some(_) => sent + "\n",
            };
            prop_assert_eq!(joined(&folder.entries(), stream), ended);
        }
    }
}
