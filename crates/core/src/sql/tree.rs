//! A parse tree as a flat list. libpg_query writes the tree as JSON: `{"SelectStmt":{"targetList":[{"ResTarget":…`.
//! Each value becomes an item that knows where it ends, children following their parent, so that "every function call
//! in here" is a loop over a slice and no depth of nesting can exhaust the stack. A node is an object whose only
//! member is named after its type; fields whose type is fixed hold the members directly.

/// A parse tree, borrowed from its JSON text.
pub(super) struct Tree<'a> {
    json: &'a str,
    items: Vec<Item>,
}

/// 12 bytes, because a long INSERT has a million of them.
struct Item {
    /// Where the member's name starts in the text, after its quote; 0 for elements of arrays.
    key: u32,
    /// Where the value starts.
    value: u32,
    /// The index of the first item that is not inside this one.
    end: u32,
}

/// One value of the tree.
#[derive(Clone, Copy)]
pub(super) struct TreeValue<'t, 'a> {
    tree: &'t Tree<'a>,
    index: usize,
}

impl<'a> Tree<'a> {
    /// Reads the JSON that libpg_query writes. Positions are left out. Returns `None` for a text that is not of that
    /// form or exceeds 4 GiB.
    pub(super) fn read(json: &'a str) -> Option<Tree<'a>> {
        Tree::build(json, false)
    }

    /// The same, with the positions: members `location`, in bytes from the beginning of the text.
    pub(super) fn read_with_positions(json: &'a str) -> Option<Tree<'a>> {
        Tree::build(json, true)
    }

    fn build(json: &'a str, positions: bool) -> Option<Tree<'a>> {
        u32::try_from(json.len()).ok()?;
        let bytes = json.as_bytes();
        let mut tree = Tree { json, items: Vec::with_capacity(64) };
        let mut open: Vec<usize> = Vec::with_capacity(32);
        let (mut at, mut key) = (0usize, 0u32);
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'{' | b'[' => {
                    open.push(tree.items.len());
                    tree.items.push(Item { key, value: at as u32, end: 0 });
                    (at, key) = (at + 1, 0);
                }
                b'}' | b']' => {
                    let item = open.pop()?;
                    tree.items[item].end = tree.items.len() as u32;
                    at += 1;
                }
                b',' | b' ' => at += 1,
                b'"' => {
                    let end = string_end(bytes, at)?;
                    if bytes.get(end) == Some(&b':') && key == 0 {
                        (at, key) = (end + 1, at as u32 + 1);
                    } else {
                        tree.leaf(key, at);
                        (at, key) = (end, 0);
                    }
                }
                _ => {
                    let end = at + bytes[at..].iter().position(|byte| b",]}".contains(byte))?;
                    if positions || key == 0 || tree.name(key) != "location" {
                        tree.leaf(key, at);
                    }
                    (at, key) = (end, 0);
                }
            }
        }
        (open.is_empty() && !tree.items.is_empty()).then_some(tree)
    }

    pub(super) fn root(&self) -> TreeValue<'_, 'a> {
        TreeValue { tree: self, index: 0 }
    }

    fn leaf(&mut self, key: u32, value: usize) {
        let end = self.items.len() as u32 + 1;
        self.items.push(Item { key, value: value as u32, end });
    }

    /// The member's name that starts at an offset. Names are written by libpg_query and hold no escapes.
    fn name(&self, key: u32) -> &'a str {
        let rest = &self.json[key as usize..];
        rest.split('"').next().unwrap_or(rest)
    }
}

impl<'t, 'a> TreeValue<'t, 'a> {
    /// The name under which this value stands in its object; empty for elements of arrays.
    pub(super) fn key(self) -> &'a str {
        match self.tree.items[self.index].key {
            0 => "",
            key => self.tree.name(key),
        }
    }

    /// The members or elements of this value, in order.
    pub(super) fn children(self) -> impl Iterator<Item = TreeValue<'t, 'a>> {
        let end = self.end();
        let mut next = self.index + 1;
        std::iter::from_fn(move || {
            let child = (next < end).then_some(TreeValue { tree: self.tree, index: next })?;
            next = child.end();
            Some(child)
        })
    }

    /// This value and everything inside it, parents before children.
    pub(super) fn walk(self) -> impl Iterator<Item = TreeValue<'t, 'a>> {
        (self.index..self.end()).map(move |index| TreeValue { tree: self.tree, index })
    }

    /// The member with a name.
    pub(super) fn get(self, name: &str) -> Option<TreeValue<'t, 'a>> {
        self.children().find(|child| child.key() == name)
    }

    /// The only member of an object or element of an array: from a node to what it is.
    pub(super) fn only(self) -> Option<TreeValue<'t, 'a>> {
        self.children().next()
    }

    pub(super) fn is_array(self) -> bool {
        self.byte() == b'['
    }

    pub(super) fn is_true(self) -> bool {
        self.byte() == b't'
    }

    /// The text of a string, with its escapes as they are in JSON (only names with `"`, `\` or control characters
    /// have any); empty for every other kind of value.
    pub(super) fn text(self) -> &'a str {
        let start = self.tree.items[self.index].value as usize;
        match string_end(self.tree.json.as_bytes(), start) {
            Some(end) if self.byte() == b'"' => &self.tree.json[start + 1..end - 1],
            _ => "",
        }
    }

    /// The value of an integer; 0 for every other kind of value.
    pub(super) fn number(self) -> i64 {
        let rest = &self.tree.json[self.tree.items[self.index].value as usize..];
        rest.split([',', '}', ']']).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// The text of a string member; empty when there is none.
    pub(super) fn text_of(self, name: &str) -> &'a str {
        self.get(name).map_or("", TreeValue::text)
    }

    /// Whether a member is there and true.
    pub(super) fn flag(self, name: &str) -> bool {
        self.get(name).is_some_and(TreeValue::is_true)
    }

    fn end(self) -> usize {
        self.tree.items[self.index].end as usize
    }

    fn byte(self) -> u8 {
        self.tree.json.as_bytes()[self.tree.items[self.index].value as usize]
    }
}

/// The offset after the closing quote of the string that starts at an offset.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The parts of a name with dots.
pub(super) fn parts<'t, 'a: 't>(names: TreeValue<'t, 'a>) -> impl Iterator<Item = &'a str> {
    names.children().filter_map(TreeValue::only).map(|part| part.text_of("sval"))
}

/// The last of them, which is the name without its schema.
pub(super) fn last_part<'a>(names: TreeValue<'_, 'a>) -> &'a str {
    parts(names).last().unwrap_or("")
}

/// Whether a name has no schema, or that of the built-in things.
pub(super) fn is_built_in(names: TreeValue<'_, '_>) -> bool {
    let count = names.children().count();
    count == 1 || count == 2 && parts(names).next() == Some("pg_catalog")
}

/// Undoes the escapes of a JSON string.
pub(super) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match rest.next() {
            Some('n') => plain.push('\n'),
            Some('t') => plain.push('\t'),
            Some('r') => plain.push('\r'),
            Some('b') => plain.push('\u{8}'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let digits: String = rest.by_ref().take(4).collect();
                plain.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_members_and_skips_positions() {
        let tree = Tree::read(r#"{"a":{"b":[{"c":"x\"y"},{"d":true,"location":7}],"e":-12},"f":{}}"#).unwrap();
        let a = tree.root().get("a").unwrap();
        let list = a.get("b").unwrap();
        assert!(list.is_array());
        assert_eq!(list.children().count(), 2);
        assert_eq!(list.only().unwrap().text_of("c"), r#"x\"y"#);
        assert!(list.children().nth(1).unwrap().flag("d"));
        assert!(list.children().nth(1).unwrap().get("location").is_none());
        assert_eq!(a.get("e").unwrap().number(), -12);
        assert_eq!(tree.root().get("f").unwrap().children().count(), 0);
        assert_eq!(
            tree.root().walk().map(TreeValue::key).collect::<Vec<_>>(),
            ["", "a", "b", "", "c", "", "d", "e", "f"]
        );
    }

    #[test]
    fn refuses_what_is_not_a_tree() {
        for text in ["", "{", "}", "{\"a\":\"x", "{\"a\":1", "[}]"] {
            assert!(Tree::read(text).is_none_or(|tree| tree.root().walk().count() > 0), "{text}");
        }
        assert!(Tree::read("").is_none() && Tree::read("{").is_none() && Tree::read("{\"a\":\"x").is_none());
    }

    #[test]
    fn undoes_escapes() {
        assert_eq!(unescape(r#"a\"b\\c\n\u0001\/é"#), "a\"b\\c\n\u{1}/é");
    }
}
