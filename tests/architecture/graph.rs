//! Which module names which: the arrows of a crate, and the circles that they make.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::source::{Module, Modules};

/// Crates whose names are watched: as the source names them, and as the table of parts does.
const WATCHED: [(&str, &str); 5] = [
    ("rocksdb", "rocksdb"),
    ("socket2", "socket2"),
    ("ring", "ring"),
    ("duragram_proto", "proto"),
    ("duragram_client", "client"),
];

/// What everyone may name of duragram-proto: ids are words that all parts share, whichever crate defines them.
const SHARED_IDS: [&str; 3] = ["ClientId", "Epoch", "Seq"];

/// The name of a folder's own first file (`mod.rs`, or the file beside the folder) among its neighbours.
pub(crate) const OWN: &str = "mod";

/// How often a name may be passed on before it is taken for lost.
const PASSED_ON_MAX: usize = 16;

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The module that defines it.
    Module(Vec<String>),
    /// Another crate, by its name in the table of parts.
    Crate(&'static str),
}

/// A module names something of another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrow {
    pub(crate) from: Vec<String>,
    pub(crate) to: Target,
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    /// As the source names it.
    pub(crate) named: String,
}

/// An arrow between two neighbours in a folder, files or folders.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    /// The folder, as modules: the root's is empty.
    pub(crate) folder: Vec<String>,
    /// The neighbours' names; [`OWN`] for the folder's own first file.
    pub(crate) from: String,
    pub(crate) to: String,
}

/// Neighbours in a folder each of which knows, by way of the others, itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Circle {
    pub(crate) folder: Vec<String>,
    pub(crate) members: Vec<String>,
    /// One arrow for each step within it.
    pub(crate) arrows: Vec<Arrow>,
}

/// All arrows of a crate.
pub(crate) fn arrows(modules: &Modules) -> Vec<Arrow> {
    let mut arrows = BTreeSet::new();
    for (path, module) in modules {
        let from = of_file(modules, path);
        let imports = module.imports.iter().map(|import| (&import.name, import.passed_on));
        for (name, passed_on) in imports.chain(module.names.iter().map(|name| (name, false))) {
            let to = match resolve(modules, path, &name.segments, 0) {
                Some(Target::Module(to)) => Target::Module(of_file(modules, &to)),
                Some(other) => other,
                None => continue,
            };
            let own = matches!(&to, Target::Module(to) if *to == from);
            // A module that passes on what its children have is their door, and depends on nothing.
            let door = passed_on && matches!(&to, Target::Module(to) if to.starts_with(&from));
            if !own && !door {
                let named = name.segments.join("::");
                arrows.insert(Arrow { from: from.clone(), to, file: module.file.clone(), line: name.line, named });
            }
        }
    }
    arrows.into_iter().collect()
}

/// The module whose file holds this one.
fn of_file(modules: &Modules, path: &[String]) -> Vec<String> {
    let mut path = path.to_vec();
    while modules.get(&path).is_some_and(|module| module.inline) {
        path.pop();
    }
    path
}

/// What `segments` lead to from the module `at`; `None` for what is of no interest here.
pub(crate) fn resolve(modules: &Modules, at: &[String], segments: &[String], passed: usize) -> Option<Target> {
    let module = modules.get(at)?;
    let (first, rest) = segments.split_first()?;
    match first.as_str() {
        "crate" => Some(walk(modules, Vec::new(), rest, passed)),
        "self" => Some(walk(modules, at.to_vec(), rest, passed)),
        "super" => {
            let mut place = at.to_vec();
            let above = segments.iter().take_while(|segment| *segment == "super").count();
            place.truncate(place.len().checked_sub(above)?);
            Some(walk(modules, place, &segments[above..], passed))
        }
        "" => watched(rest),
        name if module.children.iter().any(|child| child == name) => Some(walk(modules, at.to_vec(), segments, passed)),
        name => match import_of(module, name).filter(|import| import.first() != Some(first)) {
            Some(import) if passed < PASSED_ON_MAX => {
                let whole: Vec<String> = import.iter().chain(rest).cloned().collect();
                resolve(modules, at, &whole, passed + 1)
            }
            _ => watched(segments),
        },
    }
}

fn watched(segments: &[String]) -> Option<Target> {
    let name = segments.first()?;
    let id = segments.get(1).is_some_and(|id| SHARED_IDS.contains(&id.as_str()));
    if name == "duragram_proto" && id {
        return None;
    }
    WATCHED.iter().find(|(known, _)| known == name).map(|&(_, part)| Target::Crate(part))
}

fn import_of<'a>(module: &'a Module, name: &str) -> Option<&'a [String]> {
    module.imports.iter().find(|import| import.alias == name).map(|import| import.name.segments.as_slice())
}

/// Where `rest` leads from the module `place`: as far as it is known.
fn walk(modules: &Modules, mut place: Vec<String>, rest: &[String], passed: usize) -> Target {
    let (Some(module), Some((first, further))) = (modules.get(&place), rest.split_first()) else {
        return Target::Module(place);
    };
    if module.children.contains(first) {
        place.push(first.clone());
        return walk(modules, place, further, passed);
    }
    if module.defined.contains(first) || passed == PASSED_ON_MAX {
        return Target::Module(place);
    }
    if let Some(import) = import_of(module, first) {
        let whole: Vec<String> = import.iter().chain(further).cloned().collect();
        return match resolve(modules, &place, &whole, passed + 1) {
            // What a part makes its own is the part's: who takes an id from the model need not know the protocol.
            Some(Target::Crate(_)) if !place.is_empty() => Target::Module(place),
            Some(target) => target,
            None => Target::Module(place),
        };
    }
    for import in module.imports.iter().filter(|import| import.alias == "*") {
        if let Some(Target::Module(from)) = resolve(modules, &place, &import.name.segments, passed + 1)
            && from != place
            && modules.get(&from).is_some_and(|module| module.defined.contains(first))
        {
            return Target::Module(from);
        }
    }
    Target::Module(place)
}

/// The arrow as its nearest common folder sees it.
pub(crate) fn step(arrow: &Arrow) -> Step {
    match &arrow.to {
        Target::Crate(name) => {
            let from = arrow.from.first().map_or(OWN, String::as_str);
            Step { folder: Vec::new(), from: from.to_owned(), to: (*name).to_owned() }
        }
        Target::Module(to) => {
            let common = arrow.from.iter().zip(to).take_while(|(a, b)| a == b).count();
            let name = |path: &[String]| path.get(common).cloned().unwrap_or_else(|| OWN.into());
            Step { folder: arrow.from[..common].to_vec(), from: name(&arrow.from), to: name(to) }
        }
    }
}

/// The circles in each folder.
pub(crate) fn circles(arrows: &[Arrow]) -> Vec<Circle> {
    let mut folders: BTreeMap<Vec<String>, BTreeMap<(String, String), &Arrow>> = BTreeMap::new();
    for arrow in arrows {
        let Step { folder, from, to } = step(arrow);
        // A folder's first file and what stands in the folder are parent and child: one may name the other.
        if from == OWN || to == OWN {
            continue;
        }
        folders.entry(folder).or_default().entry((from, to)).or_insert(arrow);
    }
    folders.into_iter().flat_map(|(folder, steps)| circles_of(&folder, &steps)).collect()
}

fn circles_of(folder: &[String], steps: &BTreeMap<(String, String), &Arrow>) -> Vec<Circle> {
    let names: BTreeSet<&String> = steps.keys().flat_map(|(from, to)| [from, to]).collect();
    let reach: BTreeMap<&String, BTreeSet<&String>> = names.iter().map(|name| (*name, reached(steps, name))).collect();
    let mut circles = Vec::new();
    let mut done = BTreeSet::new();
    for name in names {
        let both = |other: &&String| reach[name].contains(*other) && reach[*other].contains(name);
        let members: Vec<String> = reach.keys().copied().filter(both).cloned().collect();
        if members.is_empty() || !done.insert(members.clone()) {
            continue;
        }
        let within = |(from, to): &(String, String)| members.contains(from) && members.contains(to);
        let arrows = steps.iter().filter(|(step, _)| within(step)).map(|(_, arrow)| (*arrow).clone()).collect();
        circles.push(Circle { folder: folder.to_vec(), members, arrows });
    }
    circles
}

/// What is reached from `start` by one step or more.
fn reached<'a>(steps: &'a BTreeMap<(String, String), &Arrow>, start: &'a String) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![start];
    while let Some(from) = next.pop() {
        next.extend(steps.keys().filter(|step| step.0 == *from).map(|step| &step.1).filter(|to| reached.insert(*to)));
    }
    reached
}
