//! Ways in which files come to harm.

use super::state::{Files, Random};

/// Hurts one file, or two where they are mixed up; says how, and what kind of file. `older` are the same directory's files
/// at earlier times.
pub(super) fn hurt(files: &mut Files, older: &[Files], random: &mut Random) -> String {
    loop {
        if let Some(what) = attempt(files, older, random) {
            return what;
        }
    }
}

/// By kind of file, so that one witness is hurt as often as a hundred table files.
fn choose(files: &Files, random: &mut Random) -> String {
    let mut kinds: Vec<String> = files.keys().map(|name| kind(name)).collect();
    kinds.sort();
    kinds.dedup();
    let chosen = &kinds[random.below(kinds.len())];
    let names: Vec<&String> = files.keys().filter(|name| kind(name) == *chosen).collect();
    names[random.below(names.len())].clone()
}

fn kind(name: &str) -> String {
    if name.starts_with("rocksdb.damaged-") {
        return "set aside".into();
    }
    let file = name.rsplit('/').next().unwrap();
    let kind = match file.rsplit_once('.') {
        Some((_, extension)) => extension,
        None => file.split('-').next().unwrap(),
    };
    match name.contains('/') {
        true => format!("rocksdb/{kind}"),
        false => kind.into(),
    }
}

/// `None` when nothing came of it.
fn attempt(files: &mut Files, older: &[Files], random: &mut Random) -> Option<String> {
    let name = choose(files, random);
    let good = files[&name].clone();
    let mut bytes = good.clone();
    let at = place(&bytes, random);
    let left = bytes.len() - at;
    let length = |random: &mut Random| {
        let most = [4, 64, 512, 4096, 40_000][random.below(5)];
        1 + random.below(left.min(most))
    };
    let how = match random.below(14) {
        0 | 1 => {
            *bytes.get_mut(at)? ^= 1 << random.below(8);
            "flip a bit"
        }
        2 => {
            *bytes.get_mut(at)? = u8::try_from(random.below(256)).unwrap();
            "change a byte"
        }
        3 | 4 => {
            bytes.truncate(at);
            "cut"
        }
        5 => {
            let few = 1 + random.below(16);
            bytes.truncate(bytes.len().saturating_sub(few));
            "cut the end"
        }
        6 => {
            let end = at + length(random);
            bytes.get_mut(at..end)?.fill([0, 0xff, 5][random.below(3)]);
            "blank"
        }
        7 => {
            let end = at + length(random);
            bytes.get_mut(at..end)?.fill_with(|| u8::try_from(random.below(256)).unwrap());
            "scramble"
        }
        8 => {
            files.remove(&name);
            return Some(format!("{} delete", kind(&name)));
        }
        9 => {
            let n = 1 + random.below(5000);
            let byte = random.next().to_le_bytes()[0];
            bytes.extend(std::iter::repeat_n(byte, n));
            "lengthen"
        }
        10 => {
            // A piece lies where another should.
            let to = place(&bytes, random);
            let n = length(random).min(bytes.len() - to);
            let piece = bytes[at..(at + n).min(bytes.len())].to_vec();
            let other = bytes[to..to + piece.len().min(n)].to_vec();
            bytes.get_mut(to..to + piece.len())?.copy_from_slice(&piece);
            if random.one_in(2) {
                bytes.get_mut(at..at + other.len())?.copy_from_slice(&other);
            }
            "misplace a piece"
        }
        11 => {
            // Sectors of another file, aligned as file systems mix them up.
            let other = choose(files, random);
            let from = &files[&other];
            let sector = if random.one_in(2) { 512 } else { 4096 };
            let at = at / sector * sector;
            let piece = from.get(at..).unwrap_or(from);
            let n = piece.len().min(sector).min(bytes.len() - at);
            bytes[at..at + n].copy_from_slice(&piece[..n]);
            "take from another file"
        }
        12 => {
            let other = choose(files, random);
            let theirs = files.insert(other.clone(), good)?;
            let same = theirs == bytes;
            files.insert(name.clone(), theirs);
            return (!same && other != name).then(|| format!("{} exchange with another file", kind(&name)));
        }
        _ => {
            let old = &older.get(random.below(older.len()))?;
            if random.one_in(4) {
                // All of the database, and the files beside it as they are now.
                files.retain(|name, _| !name.starts_with("rocksdb/"));
                let of_database = old.iter().filter(|(name, _)| name.starts_with("rocksdb/"));
                files.extend(of_database.map(|(name, bytes)| (name.clone(), bytes.clone())));
                return Some("the whole database as it was earlier".into());
            }
            bytes.clone_from(old.get(&name)?);
            "as it was earlier"
        }
    };
    if bytes == good {
        return None;
    }
    files.insert(name.clone(), bytes);
    Some(format!("{} {how}", kind(&name)))
}

/// Mostly where the file says something: logs have long tails of filling.
fn place(bytes: &[u8], random: &mut Random) -> usize {
    let last = bytes.last().copied().unwrap_or(0);
    let filled = bytes.iter().rev().take_while(|&&byte| byte == last).count();
    let used = if random.one_in(10) || filled < 64 { bytes.len() } else { bytes.len() - filled + 8 };
    // The ends of files have the most to tell.
    match random.below(6) {
        0 => used - random.below(used.min(64)).min(used),
        1 => random.below(used.min(64)),
        _ => random.below(used),
    }
    .min(bytes.len())
}
