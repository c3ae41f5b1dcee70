//! Expressions of the catalogs, compared as trees: their text depends on the search path.

use super::design::{Given, Range};
use crate::pg::catalog::is_own_function;
use pgrx::pg_sys::{self, Node, NodeTag, Oid};

/// # Safety
/// `list` is NULL (the empty list) or a list of nodes.
pub(super) unsafe fn list<'a>(list: *mut pg_sys::List) -> &'a [*mut Node] {
    if list.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise; a cell of such a list is a pointer.
    unsafe { std::slice::from_raw_parts((*list).elements.cast(), (*list).length as usize) }
}

/// The node as what its tag says.
///
/// # Safety
/// `node` is NULL or valid, and `T` is what nodes with that tag are.
unsafe fn node<'a, T>(node: *mut Node, tag: NodeTag) -> Option<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { if !node.is_null() && (*node).type_ == tag { node.cast::<T>().as_ref() } else { None } }
}

/// Whether an expression is that column.
///
/// # Safety
/// `expression` is NULL or a valid node, as in all of these.
unsafe fn is_column(expression: *mut Node, number: i16) -> bool {
    // SAFETY: the caller's promise.
    unsafe { node::<pg_sys::Var>(expression, NodeTag::T_Var) }
        .is_some_and(|var| var.varattno == number && var.varlevelsup == 0)
}

/// Whether an expression is that `int`.
///
/// # Safety
/// As above.
unsafe fn is_number(expression: *mut Node, number: i32) -> bool {
    // SAFETY: the caller's promise.
    unsafe { node::<pg_sys::Const>(expression, NodeTag::T_Const) }.is_some_and(|constant| {
        constant.consttype == pg_sys::INT4OID && !constant.constisnull && constant.constvalue.value() as i32 == number
    })
}

/// Whether an expression is `column IS NOT NULL`.
///
/// # Safety
/// As above.
pub(super) unsafe fn is_not_null(expression: *mut Node, number: i16) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        node::<pg_sys::NullTest>(expression, NodeTag::T_NullTest).is_some_and(|test| {
            test.nulltesttype == pg_sys::NullTestType::IS_NOT_NULL
                && !test.argisrow
                && is_column(test.arg.cast(), number)
        })
    }
}

/// Whether an expression is that range of a column, by the server's own operators.
///
/// # Safety
/// As above.
pub(super) unsafe fn is_range(expression: *mut Node, range: &Range) -> bool {
    let (at_least, at_most) =
        if range.of_length { (pg_sys::F_INT4GE, pg_sys::F_INT4LE) } else { (pg_sys::F_INT24GE, pg_sys::F_INT24LE) };
    // SAFETY: the caller's promise.
    let is_operand = |operand: *mut Node| unsafe {
        if !range.of_length {
            return is_column(operand, range.column);
        }
        call_of(operand).is_some_and(|(function, arguments)| {
            function.to_u32() == pg_sys::F_OCTET_LENGTH_TEXT
                && matches!(arguments, [text] if is_column(*text, range.column))
        })
    };
    // SAFETY: the caller's promise.
    let compares = |expression: *mut Node, function: u32, number: i32| unsafe {
        node::<pg_sys::OpExpr>(expression, NodeTag::T_OpExpr).is_some_and(|comparison| {
            let [left, right] = list(comparison.args) else { return false };
            comparison.opfuncid.to_u32() == function && is_operand(*left) && is_number(*right, number)
        })
    };
    // SAFETY: the caller's promise.
    unsafe {
        node::<pg_sys::BoolExpr>(expression, NodeTag::T_BoolExpr).is_some_and(|both| {
            let [least, most] = list(both.args) else { return false };
            both.boolop == pg_sys::BoolExprType::AND_EXPR
                && compares(*least, at_least, range.least)
                && compares(*most, at_most, range.most)
        })
    }
}

/// Whether a default gives that.
///
/// # Safety
/// As above.
pub(super) unsafe fn gives(expression: *mut Node, given: Given) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        match (given, call_of(expression)) {
            (Given::Zero, _) => is_number(expression, 0),
            (Given::Server(wanted), Some((function, []))) => function.to_u32() == wanted,
            (Given::Own(wanted), Some((function, []))) => is_own_function(function, wanted),
            (Given::Next(wanted), Some((function, [_]))) => {
                is_own_function(function, wanted) && relation_argument(expression).is_some()
            }
            _ => false,
        }
    }
}

/// The relation that is the only argument of a call.
///
/// # Safety
/// As above.
pub(super) unsafe fn relation_argument(expression: *mut Node) -> Option<Oid> {
    // SAFETY: the caller's promise.
    unsafe {
        let (_, [argument]) = call_of(expression)? else { return None };
        let constant = node::<pg_sys::Const>(*argument, NodeTag::T_Const)?;
        (constant.consttype == pg_sys::REGCLASSOID && !constant.constisnull)
            .then(|| Oid::from(constant.constvalue.value() as u32))
    }
}

/// The function and the arguments of a call.
///
/// # Safety
/// As above.
unsafe fn call_of<'a>(expression: *mut Node) -> Option<(Oid, &'a [*mut Node])> {
    // SAFETY: the caller's promise.
    unsafe {
        let call = node::<pg_sys::FuncExpr>(expression, NodeTag::T_FuncExpr)?;
        Some((call.funcid, list(call.args)))
    }
}
