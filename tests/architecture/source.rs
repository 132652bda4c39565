//! Rust source as far as the rules need it: its words without comments, texts and tests, its modules, and what they name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A word or a sign of the source, and its line, the first being 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// A path such as `crate::net::Batch`, as the source names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

/// One leaf of a `use` declaration.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    pub(crate) name: Name,
    /// What it is called from then on: `*` for all that the path has.
    pub(crate) alias: String,
    /// The declaration is `pub`: the module passes it on.
    pub(crate) passed_on: bool,
}

/// A module, inline ones included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Module {
    /// The file that holds it, from the root of the project.
    pub(crate) file: PathBuf,
    pub(crate) children: Vec<String>,
    pub(crate) imports: Vec<Import>,
    /// Paths within code, outside of `use`.
    pub(crate) names: Vec<Name>,
    /// The file itself defines items of these names.
    pub(crate) defined: Vec<String>,
    /// It stands within its parent's file.
    pub(crate) inline: bool,
}

/// The modules of a crate by their paths; the root's is empty.
pub(crate) type Modules = BTreeMap<Vec<String>, Module>;

/// Reads a crate from its first file on, without tests. `root`: of the project; `first`: the file from there.
///
/// # Panics
/// When a module has no file: then this program does not understand the source.
pub(crate) fn read_crate(root: &Path, first: &Path) -> Modules {
    let mut modules = Modules::new();
    let folder = first.parent().expect("a file stands in a folder").to_owned();
    read_module(root, first, &folder, Vec::new(), &mut modules);
    modules
}

/// `folder`: where the module's children stand.
fn read_module(root: &Path, file: &Path, folder: &Path, path: Vec<String>, modules: &mut Modules) {
    let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let outside = read_text(&text, file, path, modules);
    for path in outside {
        let name = path.last().expect("a declared module has a name");
        // Of an inline module's children the folder is one deeper.
        let nested: PathBuf = path.iter().skip(path.len() - 1 - inline_depth(&path, modules)).collect();
        let flat = folder.join(&nested).with_extension("rs");
        let (child, within) = match root.join(&flat).exists() {
            true => (flat, folder.join(&nested)),
            false => (folder.join(&nested).join("mod.rs"), folder.join(&nested)),
        };
        assert!(root.join(&child).exists(), "{}: module {name} has no file", file.display());
        read_module(root, &child, &within, path, modules);
    }
}

/// How many of a module's parents, from the nearest, are inline.
fn inline_depth(path: &[String], modules: &Modules) -> usize {
    (1..path.len()).rev().take_while(|&len| modules.get(&path[..len]).is_some_and(|module| module.inline)).count()
}

/// Reads one file's text into `modules`; returns the paths of the modules that it declares and that have files of their own.
pub(crate) fn read_text(text: &str, file: &Path, path: Vec<String>, modules: &mut Modules) -> Vec<Vec<String>> {
    let tokens = without_tests(&tokens(&without_comments(text)));
    let mut reader = Reader { tokens: &tokens, at: 0, file, outside: Vec::new(), modules };
    reader.module(path, false);
    reader.outside
}

/// The text with comments and the inside of string and character literals blank; its lines stay.
pub(crate) fn without_comments(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let begun = at;
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            let mut depth = 0;
            loop {
                depth = if starts(at, "/*") { depth + 1 } else { depth };
                depth = if starts(at, "*/") { depth - 1 } else { depth };
                at += if starts(at, "/*") || starts(at, "*/") { 2 } else { 1 };
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if let Some(hashes) = raw_string(&chars, at) {
            let end = format!("\"{}", "#".repeat(hashes));
            at += 2 + hashes;
            while at < chars.len() && !starts(at, &end) {
                at += 1;
            }
            at += end.len();
        } else if chars[at] == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if chars[at] == '\'' && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'')) {
            at += if chars[at + 1] == '\\' { 3 } else { 2 };
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[begun..at.min(chars.len())].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
    }
    out
}

/// The number of its `#` signs, if a raw string begins here.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let part_of_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') && chars[at - 1] != 'b';
    if chars[at] != 'r' || part_of_word {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// Words and signs; `::` is one sign, all others are single characters.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let len = match rest.find(|c: char| !c.is_alphanumeric() && c != '_') {
                Some(0) if rest.starts_with("::") => 2,
                Some(0) => first.len_utf8(),
                Some(len) => len,
                None => rest.len(),
            };
            tokens.push(Token { line: number + 1, text: rest[..len].to_owned() });
            rest = rest[len..].trim_start();
        }
    }
    tokens
}

/// Without the items that are compiled for tests alone, and without attributes.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let attribute = (tokens[at].text == "#").then(|| at + 1 + usize::from(text(tokens, at + 1) == "!"));
        let Some(open) = attribute.filter(|&open| text(tokens, open) == "[") else {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        };
        let end = closing(tokens, open);
        let words: Vec<&str> = tokens[open..end].iter().map(|token| token.text.as_str()).collect();
        at = end + 1;
        if words.starts_with(&["[", "cfg", "(", "test", ")"]) || words.starts_with(&["[", "cfg", "(", "doctest", ")"]) {
            at = end_of_item(tokens, at);
        }
    }
    kept
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| &token.text)
}

/// Where the bracket closes that opens at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// Behind the item, field or statement that begins at `at`.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    let starts = ["pub", "fn", "mod", "use", "impl", "struct", "enum", "trait", "const", "static", "type"];
    let item = starts.contains(&text(tokens, at));
    while at < tokens.len() {
        match text(tokens, at) {
            "{" => return closing(tokens, at) + 1,
            "(" | "[" => at = closing(tokens, at) + 1,
            ";" => return at + 1,
            "," if !item => return at + 1,
            "}" => return at,
            _ => at += 1,
        }
    }
    at
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    file: &'a Path,
    outside: Vec<Vec<String>>,
    modules: &'a mut Modules,
}

impl Reader<'_> {
    fn text(&self, ahead: usize) -> &str {
        text(self.tokens, self.at + ahead)
    }

    /// Reads up to the end of the module that has begun.
    fn module(&mut self, path: Vec<String>, inline: bool) {
        let mut module = Module { file: self.file.to_owned(), inline, ..Module::default() };
        self.modules.insert(path.clone(), module.clone());
        let mut depth = 0usize;
        let mut passed_on = false;
        while self.at < self.tokens.len() {
            let before = if self.at == 0 { "" } else { text(self.tokens, self.at - 1) };
            match (self.text(0), self.text(1)) {
                ("{", _) => depth += 1,
                ("}", _) if depth == 0 => break,
                ("}", _) => depth -= 1,
                ("pub", next) => {
                    passed_on = true;
                    if next == "(" {
                        self.at = closing(self.tokens, self.at + 1);
                    }
                    self.at += 1;
                    continue;
                }
                ("mod", name) if is_word(name) && matches!(self.text(2), ";" | "{") => {
                    let child: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
                    module.children.push(name.to_owned());
                    let inline = self.text(2) == "{";
                    self.at += 3;
                    match inline {
                        true => self.module(child, true),
                        false => self.outside.push(child),
                    }
                    passed_on = false;
                    continue;
                }
                ("use", _) => {
                    self.at += 1;
                    self.import(&[], passed_on, &mut module.imports);
                    passed_on = false;
                    continue;
                }
                ("struct" | "enum" | "trait" | "fn" | "type" | "const" | "static" | "union" | "macro_rules", name)
                    if depth == 0 =>
                {
                    let name = if name == "!" { self.text(2) } else { name };
                    module.defined.push(name.to_owned());
                }
                ("::", word) if is_word(word) && !is_word(before) && before != ">" => {
                    // From outside of the crate.
                    let line = self.tokens[self.at].line;
                    self.at += 1;
                    let mut name = self.name();
                    name.segments.insert(0, String::new());
                    module.names.push(Name { line, ..name });
                    passed_on = false;
                    continue;
                }
                (word, "::") if is_word(word) && before != "::" && before != "." => {
                    let name = self.name();
                    module.names.push(name);
                    passed_on = false;
                    continue;
                }
                _ => {}
            }
            passed_on = false;
            self.at += 1;
        }
        self.at += 1;
        self.modules.insert(path, module);
    }

    /// A path from the current word on.
    fn name(&mut self) -> Name {
        let mut name = Name { line: self.tokens[self.at].line, segments: vec![self.text(0).to_owned()] };
        self.at += 1;
        while self.text(0) == "::" && is_word(self.text(1)) {
            name.segments.push(self.text(1).to_owned());
            self.at += 2;
        }
        name
    }

    /// A tree of imports below `prefix`, up to behind its `;`, or before the `,` or `}` that ends it.
    fn import(&mut self, prefix: &[String], passed_on: bool, imports: &mut Vec<Import>) {
        let mut segments = prefix.to_vec();
        let mut alias = None;
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        let mut branched = false;
        loop {
            match self.text(0) {
                "{" => {
                    branched = true;
                    self.at += 1;
                    while !matches!(self.text(0), "}" | "") {
                        self.import(&segments, passed_on, imports);
                        self.at += usize::from(self.text(0) == ",");
                    }
                }
                "as" => {
                    alias = Some(self.text(1).to_owned());
                    self.at += 1;
                }
                "," | "}" | "" => break,
                ";" => {
                    self.at += 1;
                    break;
                }
                "::" if segments.is_empty() => segments.push(String::new()),
                "::" => {}
                "self" if !segments.is_empty() => {}
                word => segments.push(word.to_owned()),
            }
            self.at += 1;
        }
        if let (false, Some(last)) = (branched, segments.last()) {
            let alias = alias.unwrap_or_else(|| last.clone());
            segments.retain(|segment| segment != "*");
            imports.push(Import { name: Name { line, segments }, alias, passed_on });
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
