//! Commands about Poolhouse's own settings, `poolhouse.*`, and EXPLAIN ROUTE: the session answers them itself, and a
//! server never sees them.

use super::statement::StatementKind;
use super::tree::{TreeValue, unescape};

/// What a text that names settings of Poolhouse's own asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnText {
    /// Nothing else, in this order.
    Commands(Box<[OwnCommand]>),
    /// It names them where only a server could follow: next to other statements, in `set_config`, as a default of a
    /// role, a database or a function.
    Misplaced,
}

/// A command about Poolhouse's own settings, which is answered without a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnCommand {
    /// SET, and SET LOCAL.
    Set {
        /// The setting, with its `poolhouse.`, in lower case.
        name: Box<str>,
        /// What it is set to: the values of the list, as a server would spell them.
        values: Box<[Box<str>]>,
        /// SET LOCAL: for the transaction only.
        local: bool,
    },
    /// RESET, and SET … TO DEFAULT.
    Reset {
        /// The setting, with its `poolhouse.`, in lower case.
        name: Box<str>,
        /// SET LOCAL … TO DEFAULT: for the transaction only.
        local: bool,
        /// The tag that the server would answer with: `RESET` or `SET`.
        tag: &'static str,
    },
    /// SHOW of one setting.
    Show {
        /// The setting, with its `poolhouse.`, in lower case.
        name: Box<str>,
    },
    /// EXPLAIN ROUTE: where this text would go.
    ExplainRoute {
        /// The text behind the words.
        sql: Box<[u8]>,
    },
}

/// Whether a setting, in any case, is one of Poolhouse's own.
pub fn is_own_setting(name: &str) -> bool {
    const PREFIX: &str = "poolhouse.";
    name.get(..PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
}

/// The command that a SET, RESET or SHOW is, when it is about a setting of our own.
pub(super) fn command(kind: StatementKind, node: TreeValue<'_, '_>) -> Option<OwnCommand> {
    let name = unescape(node.text_of("name"));
    if !is_own_setting(&name) {
        return None;
    }
    let name = name.to_ascii_lowercase().into();
    let local = node.flag("is_local");
    if kind == StatementKind::Show {
        return Some(OwnCommand::Show { name });
    }
    Some(match node.text_of("kind") {
        "VAR_RESET" => OwnCommand::Reset { name, local, tag: "RESET" },
        "VAR_SET_VALUE" => {
            let arguments = node.get("args").into_iter().flat_map(TreeValue::children);
            OwnCommand::Set { name, values: arguments.map(value).collect(), local }
        }
        // SET … TO DEFAULT; FROM CURRENT changes nothing but where it keeps the value, which is the transaction.
        _ => OwnCommand::Reset { name, local, tag: "SET" },
    })
}

/// A constant as a server would spell it.
fn value(argument: TreeValue<'_, '_>) -> Box<str> {
    let constant = argument.only().filter(|constant| constant.key() == "A_Const");
    let Some(constant) = constant else { return Box::default() };
    if let Some(text) = constant.get("sval") {
        unescape(text.text_of("sval")).into()
    } else if let Some(number) = constant.get("ival") {
        number.get("ival").map_or(0, TreeValue::number).to_string().into()
    } else if let Some(number) = constant.get("fval") {
        number.text_of("fval").into()
    } else {
        constant.get("boolval").is_some_and(|truth| truth.flag("boolval")).to_string().into()
    }
}

/// One step of what a text does to transaction blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockStep {
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT, or PREPARE TRANSACTION.
    Commit,
    /// ROLLBACK or ABORT.
    Rollback,
    /// SAVEPOINT of this name.
    Savepoint(Box<str>),
    /// RELEASE SAVEPOINT of this name.
    Release(Box<str>),
    /// ROLLBACK TO SAVEPOINT of this name.
    RollbackTo(Box<str>),
}

impl BlockStep {
    /// The step that a `TransactionStmt` is; `None` for COMMIT PREPARED and ROLLBACK PREPARED.
    pub(super) fn of(node: TreeValue<'_, '_>) -> Option<BlockStep> {
        let name = || unescape(node.text_of("savepoint_name")).into();
        Some(match node.text_of("kind") {
            "TRANS_STMT_BEGIN" | "TRANS_STMT_START" => BlockStep::Begin,
            "TRANS_STMT_COMMIT" | "TRANS_STMT_PREPARE" => BlockStep::Commit,
            "TRANS_STMT_ROLLBACK" => BlockStep::Rollback,
            "TRANS_STMT_SAVEPOINT" => BlockStep::Savepoint(name()),
            "TRANS_STMT_RELEASE" => BlockStep::Release(name()),
            "TRANS_STMT_ROLLBACK_TO" => BlockStep::RollbackTo(name()),
            _ => return None,
        })
    }
}
