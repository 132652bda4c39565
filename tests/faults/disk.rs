//! A disk that keeps what was synced and nothing else: what a power cut leaves, worked out from a trace.
//!
//! It is as strict as POSIX allows. A file's content is on the disk when a sync of it has returned that began after the
//! write; a file's name when its directory was synced after the name was made: syncing the file does not do it. Of what
//! was not synced anything may be there too: any of the names, any of the sectors (512 bytes) of the writes, in any
//! combination. Only a rename is all or nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::SmallRng;

use super::layer::Record;

const SECTOR: u64 = 512;

type Inode = usize;
const ROOT: Inode = 0;

/// What is below one directory.
pub(crate) struct Disk {
    root: PathBuf,
    inodes: Vec<Node>,
    /// Syncs that have begun: what of, and how many of its changes they cover.
    syncs: HashMap<u64, (Inode, usize)>,
}

enum Node {
    File { synced: Vec<u8>, changes: Changes<Content> },
    Dir { synced: Names, live: Names, changes: Changes<Name> },
}

type Names = BTreeMap<String, Inode>;

/// What is not synced yet.
struct Changes<T> {
    /// Those that have been synced.
    before: usize,
    waiting: Vec<T>,
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self { before: 0, waiting: Vec::new() }
    }
}

impl<T> Changes<T> {
    fn end(&self) -> usize {
        self.before + self.waiting.len()
    }

    /// Takes out the changes up to the n-th ever.
    fn take_to(&mut self, n: usize) -> Vec<T> {
        let count = n.saturating_sub(self.before);
        self.before += count;
        self.waiting.drain(..count).collect()
    }
}

enum Content {
    Write(u64, Vec<u8>),
    Fill { at: u64, len: u64, byte: u8 },
    Truncate(u64),
    Extend(u64),
}

/// First the name that goes, then the one that comes.
struct Name(Option<String>, Option<(String, Inode)>);

/// What survives of what was not synced.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Survival {
    Nothing,
    All,
    /// Each name and each sector with this probability.
    Some(f64),
}

impl Survival {
    /// One of them, drawn.
    pub(crate) fn draw(random: &mut SmallRng) -> Self {
        match random.random_range(0..5) {
            0 | 1 => Self::Nothing,
            2 => Self::All,
            _ => Self::Some(random.random_range(0.02..0.98)),
        }
    }

    fn survives(self, random: &mut SmallRng) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Some(share) => random.random_bool(share),
        }
    }
}

impl Disk {
    /// Everything that is below `root` now, synced.
    pub(crate) fn load(root: &Path) -> io::Result<Self> {
        let mut disk = Self { root: root.to_owned(), inodes: Vec::new(), syncs: HashMap::new() };
        disk.load_dir(root)?;
        Ok(disk)
    }

    fn load_dir(&mut self, path: &Path) -> io::Result<Inode> {
        let inode = self.add(Node::Dir { synced: Names::new(), live: Names::new(), changes: Changes::default() });
        let mut names = Names::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let child = match entry.file_type()?.is_dir() {
                true => self.load_dir(&entry.path())?,
                false => self.add(Node::File { synced: fs::read(entry.path())?, changes: Changes::default() }),
            };
            names.insert(entry.file_name().into_string().expect("UTF-8"), child);
        }
        let Node::Dir { synced, live, .. } = &mut self.inodes[inode] else { unreachable!("made above") };
        (*synced, *live) = (names.clone(), names);
        Ok(inode)
    }

    fn add(&mut self, node: Node) -> Inode {
        self.inodes.push(node);
        self.inodes.len() - 1
    }

    fn components(&self, path: &Path) -> Vec<String> {
        let below = path.strip_prefix(&self.root).expect("only what lies below the root is traced");
        below.components().map(|name| name.as_os_str().to_str().expect("UTF-8").to_owned()).collect()
    }

    /// Nothing when it has been removed meanwhile: a file that is still open and has no name any more.
    fn find(&self, path: &Path) -> Option<Inode> {
        let mut at = ROOT;
        for name in self.components(path) {
            let Node::Dir { live, .. } = &self.inodes[at] else { panic!("{} is no directory", path.display()) };
            at = *live.get(&name)?;
        }
        Some(at)
    }

    fn content(&mut self, path: &Path, change: Content) {
        let Some(inode) = self.find(path) else { return };
        let Node::File { changes, .. } = &mut self.inodes[inode] else { panic!("{} is a directory", path.display()) };
        changes.waiting.push(change);
    }

    fn name(&mut self, path: &Path, goes: Option<&str>, comes: Option<Inode>) {
        let dir = self.find(path.parent().expect("below the root")).expect("its directory is there");
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
        let change = match comes {
            Some(inode) => Name(goes.map(str::to_owned), Some((name, inode))),
            None => Name(Some(name), None),
        };
        let Node::Dir { live, changes, .. } = &mut self.inodes[dir] else { panic!("{} is a file", path.display()) };
        change.apply(live);
        changes.waiting.push(change);
    }

    /// Lets happen what was written down.
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Write { path, at, bytes } => self.content(path, Content::Write(*at, bytes.clone())),
            Record::Fill { path, at, len, byte } => {
                self.content(path, Content::Fill { at: *at, len: *len, byte: *byte });
            }
            Record::Truncate { path, len } => self.content(path, Content::Truncate(*len)),
            Record::Extend { path, len } => self.content(path, Content::Extend(*len)),
            Record::Create { path } => {
                let file = self.add(Node::File { synced: Vec::new(), changes: Changes::default() });
                self.name(path, None, Some(file));
            }
            Record::Mkdir { path } => {
                let dir = self.add(Node::Dir { synced: Names::new(), live: Names::new(), changes: Changes::default() });
                self.name(path, None, Some(dir));
            }
            Record::Link { from, to } => {
                let inode = self.find(from).expect("it was linked");
                self.name(to, None, Some(inode));
            }
            Record::Remove { path } => self.name(path, None, None),
            Record::Rename { from, to } => {
                assert_eq!(from.parent(), to.parent(), "a rename within one directory is one change");
                let inode = self.find(from).expect("it was renamed");
                let from = from.file_name().and_then(|name| name.to_str()).expect("UTF-8");
                self.name(to, Some(from), Some(inode));
            }
            Record::Sync { path, id } => {
                let Some(inode) = self.find(path) else { return };
                let covered = match &self.inodes[inode] {
                    Node::File { changes, .. } => changes.end(),
                    Node::Dir { changes, .. } => changes.end(),
                };
                self.syncs.insert(*id, (inode, covered));
            }
            Record::Synced { id } => {
                let Some((inode, covered)) = self.syncs.remove(id) else { return };
                match &mut self.inodes[inode] {
                    Node::File { synced, changes } => {
                        changes.take_to(covered).iter().for_each(|change| change.apply(synced));
                    }
                    Node::Dir { synced, changes, .. } => {
                        changes.take_to(covered).iter().for_each(|change| change.apply(synced));
                    }
                }
            }
            Record::Replies(_) | Record::Fault { .. } => {}
        }
    }

    /// Makes the directory what it is after a power cut now.
    ///
    /// The file `kept` stays the same file (its inode) as it is now, also when it is gone in between: then it lies in a
    /// directory beside the root.
    pub(crate) fn cut_power(&self, survival: Survival, random: &mut SmallRng, kept: &Path) -> io::Result<()> {
        let parking = self.root.with_extension("parking");
        fs::create_dir_all(&parking)?;
        let parked = parking.join(kept.file_name().expect("a file"));
        move_if_there(kept, &parked)?;
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        let mut before = |path: &Path| if path == kept { move_if_there(&parked, path) } else { Ok(()) };
        self.write_dir(ROOT, &self.root, survival, random, &mut before)
    }

    fn write_dir(
        &self,
        dir: Inode,
        path: &Path,
        survival: Survival,
        random: &mut SmallRng,
        before: &mut dyn FnMut(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let Node::Dir { synced, changes, .. } = &self.inodes[dir] else { panic!("{} is a file", path.display()) };
        let mut names = synced.clone();
        for change in &changes.waiting {
            if survival.survives(random) {
                change.apply(&mut names);
            }
        }
        for (name, inode) in names {
            let path = path.join(name);
            match &self.inodes[inode] {
                Node::Dir { .. } => {
                    fs::create_dir(&path)?;
                    self.write_dir(inode, &path, survival, random, before)?;
                }
                Node::File { synced, changes } => {
                    before(&path)?;
                    let mut bytes = synced.clone();
                    changes.waiting.iter().for_each(|change| change.survive(&mut bytes, survival, random));
                    // As the server makes those of its files that only it may read.
                    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
                    file.write_all(&bytes)?;
                }
            }
        }
        Ok(())
    }

    /// How the directory differs from what the trace says that it holds now, if it does.
    pub(crate) fn differs(&self, ignore: &dyn Fn(&str) -> bool) -> io::Result<Option<String>> {
        self.dir_differs(ROOT, &self.root, ignore)
    }

    fn dir_differs(&self, dir: Inode, path: &Path, ignore: &dyn Fn(&str) -> bool) -> io::Result<Option<String>> {
        let Node::Dir { live, .. } = &self.inodes[dir] else {
            return Ok(Some(format!("{} is a file", path.display())));
        };
        let mut there = Vec::new();
        for entry in fs::read_dir(path)? {
            there.push(entry?.file_name().into_string().expect("UTF-8"));
        }
        there.retain(|name| !ignore(name));
        there.sort();
        let known: Vec<_> = live.keys().filter(|name| !ignore(name)).cloned().collect();
        if there != known {
            return Ok(Some(format!("in {}: {there:?}, traced {known:?}", path.display())));
        }
        for name in known {
            let path = path.join(&name);
            match &self.inodes[live[&name]] {
                Node::Dir { .. } => {
                    if let Some(difference) = self.dir_differs(live[&name], &path, ignore)? {
                        return Ok(Some(difference));
                    }
                }
                Node::File { synced, changes } => {
                    let mut bytes = synced.clone();
                    changes.waiting.iter().for_each(|change| change.apply(&mut bytes));
                    let there = fs::read(&path)?;
                    if there != bytes {
                        let at = there.iter().zip(&bytes).position(|(a, b)| a != b);
                        let (len, traced) = (there.len(), bytes.len());
                        let path = path.display();
                        return Ok(Some(format!("{path} has {len} bytes, traced {traced}; first other byte {at:?}")));
                    }
                }
            }
        }
        Ok(None)
    }
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("files of tests are small")
}

fn grow(bytes: &mut Vec<u8>, len: u64) {
    if bytes.len() < index(len) {
        bytes.resize(index(len), 0);
    }
}

impl Content {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, new) => write(bytes, *at, new),
            Self::Fill { at, len, byte } => fill(bytes, *at, *len, *byte),
            Self::Truncate(len) => bytes.resize(index(*len), 0),
            Self::Extend(len) => grow(bytes, *len),
        }
    }

    /// As much of it as survives.
    fn survive(&self, bytes: &mut Vec<u8>, survival: Survival, random: &mut SmallRng) {
        match (survival, self) {
            (Survival::Nothing, _) => {}
            (Survival::All, _) => self.apply(bytes),
            (Survival::Some(_), Self::Write(start, new)) => {
                for (at, part) in sectors(*start, new.len() as u64) {
                    if survival.survives(random) {
                        write(bytes, at, &new[index(at - start)..index(at - start + part)]);
                    }
                }
            }
            (Survival::Some(_), Self::Fill { at, len, byte }) => {
                // A coin for each byte of a random number would be slow for what is all alike: one for each megabyte.
                for step in (0..*len).step_by(1 << 20) {
                    if survival.survives(random) {
                        fill(bytes, at + step, (len - step).min(1 << 20), *byte);
                    }
                }
            }
            (Survival::Some(_), Self::Truncate(_) | Self::Extend(_)) => {
                if random.random() {
                    self.apply(bytes);
                }
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: u64, new: &[u8]) {
    grow(bytes, at + new.len() as u64);
    bytes[index(at)..index(at) + new.len()].copy_from_slice(new);
}

fn fill(bytes: &mut Vec<u8>, at: u64, len: u64, byte: u8) {
    grow(bytes, at + len);
    bytes[index(at)..index(at + len)].fill(byte);
}

/// Start and length of the pieces of a range that lie in one sector each.
fn sectors(start: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = start + len;
    let mut at = start;
    std::iter::from_fn(move || {
        let piece = (at, end.min((at / SECTOR + 1) * SECTOR) - at);
        at += piece.1;
        (piece.1 > 0).then_some(piece)
    })
}

impl Name {
    fn apply(&self, names: &mut Names) {
        let Self(goes, comes) = self;
        if let Some(name) = goes {
            names.remove(name);
        }
        if let Some((name, inode)) = comes {
            names.insert(name.clone(), *inode);
        }
    }
}
