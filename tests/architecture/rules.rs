//! What is held against the rules, and what is said of what breaks them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::graph::{Arrow, Circle, OWN, Target, arrows, circles, step};
use crate::parts::{CRATES, LINES_MAX, NAMED_ONLY_IN, PARTS, WALLS};
use crate::source::{Modules, read_crate};

/// How many lines of the source are shown of one finding.
const LINES_SHOWN: usize = 8;
/// A doc comment of so many plain words says no more than the name below it.
const COMMENT_WORDS_SHORT: usize = 4;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// What it is, in a line that stays the same when the source around it changes.
    pub(crate) what: String,
    /// The lines of the source, the rule, and what to do.
    pub(crate) explained: String,
}

/// Everything in the project that breaks a rule.
pub(crate) fn findings(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, first) in CRATES {
        let modules = read_crate(root, Path::new(first));
        let arrows = arrows(&modules);
        if *name == "src" {
            findings.extend(forbidden(&modules, &arrows));
        }
        findings.extend(circles(&arrows).iter().map(|circle| of_circle(name, circle)));
    }
    for file in rust_files(root) {
        let text = fs::read_to_string(root.join(&file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        findings.extend(of_file(&file, &text));
    }
    findings.sort();
    findings
}

/// Arrows of the server that are not allowed, those of one file to one part together.
pub(crate) fn forbidden(modules: &Modules, arrows: &[Arrow]) -> Vec<Finding> {
    let mut found: BTreeMap<(PathBuf, String), (String, Vec<String>)> = BTreeMap::new();
    for arrow in arrows {
        if let Some((to, rule)) = broken_rule(modules, arrow) {
            let (_, lines) = found.entry((arrow.file.clone(), to)).or_insert((rule, Vec::new()));
            lines.push(format!("    {}:{}: {}", arrow.file.display(), arrow.line, arrow.named));
        }
    }
    let finding = |((file, to), (rule, lines)): ((PathBuf, String), (String, Vec<String>))| Finding {
        what: format!("{} knows {to}", file.display()),
        explained: format!("{}\n    {rule}", shown(&lines)),
    };
    found.into_iter().map(finding).collect()
}

/// The part or crate that an arrow must not lead to, and the rule that says so.
fn broken_rule(modules: &Modules, arrow: &Arrow) -> Option<(String, String)> {
    let from = arrow.from.join("/");
    if let Target::Crate(name) = arrow.to
        && let Some((_, places)) = NAMED_ONLY_IN.iter().find(|(watched, _)| *watched == name)
    {
        let rule = format!(
            "Rule: only {} may name the crate {name}, so that it can be replaced. Put what you need of it there, behind a type \
             of the project.",
            places.join(" and ")
        );
        return (!places.iter().any(|place| is_within(&from, place))).then(|| (format!("the crate {name}"), rule));
    }
    if let Target::Module(to) = &arrow.to {
        let to = to.join("/");
        if let Some((_, wall, why)) =
            WALLS.iter().find(|(below, wall, _)| is_within(&from, below) && is_within(&to, wall))
        {
            let rule =
                format!("Rule: {why}. Let it take what it needs as an argument or by a trait that stands with it.");
            return Some(((*wall).to_owned(), rule));
        }
    }
    let step = step(arrow);
    if !step.folder.is_empty() || step.from == OWN || step.from == step.to || step.to == OWN {
        return None;
    }
    let Some(part) = PARTS.iter().find(|part| part.name == step.from) else {
        debug_assert!(modules.contains_key(&arrow.from[..1]));
        return Some((
            step.to,
            format!("Rule: every part has its row in tests/architecture/parts.rs. Add {}.", step.from),
        ));
    };
    let rule = format!(
        "Rule: {} may know {}. ({}) Move what is needed to where both may know it, or take it as an argument or by a trait; \
         an arrow that must be is added in tests/architecture/parts.rs and docs/architecture.md.",
        part.name,
        if part.knows.is_empty() { "no other part".to_owned() } else { part.knows.join(", ") },
        part.may_not_know,
    );
    (!part.knows.contains(&step.to.as_str())).then_some((step.to, rule))
}

/// Some of the lines; the others are alike.
fn shown(lines: &[String]) -> String {
    let mut shown = lines.iter().take(LINES_SHOWN).cloned().collect::<Vec<_>>().join("\n");
    if lines.len() > LINES_SHOWN {
        shown.push_str(&format!("\n    and {} more", lines.len() - LINES_SHOWN));
    }
    shown
}

fn is_within(module: &str, place: &str) -> bool {
    module.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(crate) fn of_circle(name: &str, circle: &Circle) -> Finding {
    let folder = [&[name.to_owned()][..], &circle.folder].concat().join("/");
    let line = |arrow: &Arrow| {
        let step = step(arrow);
        let place = format!("{}:{}", arrow.file.display(), arrow.line);
        format!("    {place}: {} knows {} by {}", step.from, step.to, arrow.named)
    };
    let lines: Vec<String> = circle.arrows.iter().map(line).collect();
    Finding {
        what: format!("circle in {folder}: {}", circle.members.join(", ")),
        explained: format!(
            "{}\n    Rule: neighbours in a folder make no circle, so that each can be read and tested after those it knows. Move \
             what two of them share into a third file, or let one take it as an argument.",
            lines.join("\n")
        ),
    }
}

/// What can be seen of a file by itself.
pub(crate) fn of_file(file: &Path, text: &str) -> Vec<Finding> {
    let name = file.display();
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(Finding {
            what: format!("{name} is too long"),
            explained: format!(
                "    {name} has {lines} lines.\n    Rule: no file is longer than {LINES_MAX} lines. Find its second job, and give that a \
                 file of its own; tests go to its module's `tests.rs`."
            ),
        });
    }
    let fragments: Vec<String> =
        fragments(text).iter().map(|(line, text)| format!("    {name}:{line}: {text}")).collect();
    if !fragments.is_empty() {
        findings.push(Finding {
            what: format!("{name} has comments of a few words"),
            explained: format!(
                "{}\n    Rule: a doc comment is a sentence that tells something which the name does not, such as its unit, its range \
                 or whose it is. Four words or less never do.",
                shown(&fragments)
            ),
        });
    }
    let within_src = file.components().any(|component| component.as_os_str() == "src");
    if within_src && file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_tests.rs")) {
        findings.push(Finding {
            what: format!("{name} has a name of another style"),
            explained: "    Rule: a module's tests stand in its `tests.rs`, long ones in files of the folder `tests` beside it; what \
                        only sees the public side stands in the project's `tests`."
                .to_owned(),
        });
    }
    findings
}

/// Doc comments of a few words, such as "Whose." or "Which of its runs.": where they begin, and the text.
fn fragments(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut comment: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines().chain([""])) {
        let line = line.trim_start();
        match line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) {
            Some(rest) => {
                let (_, text) = comment.get_or_insert((number, String::new()));
                text.push_str(rest);
            }
            None => found.extend(comment.take().filter(|(_, text)| is_fragment(text))),
        }
    }
    found
}

/// At most four plain words and a full stop. What has code, a link or a number in it tells something; and a help text of a
/// command, which may be a phrase, has no full stop.
fn is_fragment(comment: &str) -> bool {
    let Some(words) = comment.trim().strip_suffix('.') else { return false };
    let plain = words.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '\'' | '-'));
    plain && words.split_whitespace().count() <= COMMENT_WORDS_SHORT
}

/// All files of Rust below the root, from there, but what is built and what is hidden.
pub(crate) fn rust_files(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
                files.extend(path.strip_prefix(root).map(Path::to_owned));
            }
        }
    }
    files.sort();
    files
}
