//! A template's syntax tree, rebuilt so that whatever could make something large, or look at something large, is a
//! call of a function that pays for it from the [`Budget`](super::budget::Budget).
//!
//! minijinja has no hook for its operators: `x ~ x`, forty times, is a terabyte for a hundred instructions. But its
//! parser and code generator can be used apart (feature `unstable_machinery`, which is why its version is pinned).
//! The functions have names that no template can write.

use minijinja::machinery::ast::{
    BinOp, BinOpKind, Call, CallArg, CallBlock, Compare, CompareOp, Const, EmitExpr, Expr, Filter,
    FilterBlock, ForLoop, GetAttr, IfCond, IfExpr, List, Macro, Set, SetBlock, Spanned, Stmt, Template, Test,
    UnaryOp, UnaryOpKind, Var, WithBlock,
};
use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;

pub(super) const ADD: &str = "+";
pub(super) const MULTIPLY: &str = "*";
pub(super) const JOIN: &str = "~";
pub(super) const LIST: &str = "[]";
pub(super) const TUPLE: &str = "()";
pub(super) const MAP: &str = "{}";
pub(super) const SLICE: &str = "[:]";
pub(super) const ITEM: &str = "[.]";
pub(super) const ASSIGN: &str = ".=";
/// Pays for all contents of a value and gives it back.
pub(super) const READ: &str = "read ";
/// Pays for the elements of a value and gives it back.
pub(super) const EACH: &str = "each ";
/// A variable for results that are discarded.
const NOTHING: &str = " ";

/// Tests that only look at what kind of a thing a value is.
const CHEAP_TESTS: [&str; 16] = [
    "defined",
    "undefined",
    "none",
    "string",
    "mapping",
    "sequence",
    "iterable",
    "number",
    "integer",
    "int",
    "float",
    "boolean",
    "true",
    "false",
    "odd",
    "even",
];

/// Syntax trees are walked recursively, here and by minijinja; these limits bound their depth.
const MAX_TOKENS: usize = 1000;
const MAX_ELIFS: usize = 200;

/// Refuses templates whose syntax tree would be too deep, before there is one.
pub(super) fn check_depth(source: &str, syntax: SyntaxConfig) -> Result<(), String> {
    let (mut tokens, mut elifs, mut at_start) = (0, 0, false);
    for token in tokenize(source, false, syntax) {
        let (token, span) = token.map_err(|e| e.to_string())?;
        match token {
            Token::BlockStart | Token::VariableStart => tokens = 0,
            Token::Ident("elif") if at_start => elifs += 1,
            _ => tokens += 1,
        }
        at_start = matches!(token, Token::BlockStart);
        if tokens > MAX_TOKENS {
            return Err(format!("line {}: more than {MAX_TOKENS} words in one tag", span.start_line));
        }
        if elifs > MAX_ELIFS {
            return Err(format!("more than {MAX_ELIFS} `elif`"));
        }
    }
    Ok(())
}

pub(super) fn template<'a>(tree: &Stmt<'a>) -> Result<Stmt<'a>, String> {
    match tree {
        Stmt::Template(t) => {
            Ok(Stmt::Template(Spanned::new(Template { children: body(&t.children)? }, t.span())))
        }
        _ => Err("expected a whole template".to_owned()),
    }
}

fn body<'a>(statements: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>, String> {
    statements.iter().map(statement).collect()
}

fn statement<'a>(tree: &Stmt<'a>) -> Result<Stmt<'a>, String> {
    Ok(match tree {
        Stmt::Template(_) => template(tree)?,
        Stmt::EmitExpr(s) => Stmt::EmitExpr(Spanned::new(EmitExpr { expr: expr(&s.expr)? }, s.span())),
        Stmt::EmitRaw(s) => {
            // As an expression it goes through the formatter, which pays.
            let raw = constant(Value::from(s.raw), s.span());
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr: raw }, s.span()))
        }
        Stmt::ForLoop(s) => Stmt::ForLoop(Spanned::new(
            ForLoop {
                target: target(&s.target)?,
                iter: call(EACH, vec![expr(&s.iter)?], s.iter.span()),
                filter_expr: s.filter_expr.as_ref().map(expr).transpose()?,
                recursive: s.recursive,
                body: body(&s.body)?,
                else_body: body(&s.else_body)?,
            },
            s.span(),
        )),
        Stmt::IfCond(s) => Stmt::IfCond(Spanned::new(
            IfCond { expr: expr(&s.expr)?, true_body: body(&s.true_body)?, false_body: body(&s.false_body)? },
            s.span(),
        )),
        Stmt::WithBlock(s) => {
            let assignments = s.assignments.iter().map(|(to, from)| Ok((target(to)?, expr(from)?)));
            let assignments = assignments.collect::<Result<_, String>>()?;
            Stmt::WithBlock(Spanned::new(WithBlock { assignments, body: body(&s.body)? }, s.span()))
        }
        Stmt::Set(s) => match &s.target {
            Expr::GetAttr(attribute) => {
                let name = constant(Value::from(attribute.name), s.span());
                nothing(call(ASSIGN, vec![expr(&attribute.expr)?, name, expr(&s.expr)?], s.span()), s.span())
            }
            to => Stmt::Set(Spanned::new(Set { target: target(to)?, expr: expr(&s.expr)? }, s.span())),
        },
        Stmt::SetBlock(s) => Stmt::SetBlock(Spanned::new(
            SetBlock {
                target: target(&s.target)?,
                filter: s.filter.as_ref().map(expr).transpose()?,
                body: body(&s.body)?,
            },
            s.span(),
        )),
        Stmt::FilterBlock(s) => Stmt::FilterBlock(Spanned::new(
            FilterBlock { filter: expr(&s.filter)?, body: body(&s.body)? },
            s.span(),
        )),
        Stmt::Macro(s) => Stmt::Macro(function(s)?),
        Stmt::CallBlock(s) => Stmt::CallBlock(Spanned::new(
            CallBlock { call: invocation(&s.call)?, macro_decl: function(&s.macro_decl)? },
            s.span(),
        )),
        Stmt::Continue(s) => Stmt::Continue(Spanned::new(minijinja::machinery::ast::Continue, s.span())),
        Stmt::Break(s) => Stmt::Break(Spanned::new(minijinja::machinery::ast::Break, s.span())),
        // `do` would leave its result on minijinja's stack.
        Stmt::Do(s) => nothing(Expr::Call(invocation(&s.call)?), s.span()),
        Stmt::AutoEscape(_)
        | Stmt::Block(_)
        | Stmt::Import(_)
        | Stmt::FromImport(_)
        | Stmt::Extends(_)
        | Stmt::Include(_) => {
            return Err(
                "of Jinja, `autoescape`, `block` and what reads other templates are not supported".to_owned()
            );
        }
    })
}

fn function<'a>(s: &Spanned<Macro<'a>>) -> Result<Spanned<Macro<'a>>, String> {
    let args = s.args.iter().map(target).collect::<Result<_, _>>()?;
    let defaults = s.defaults.iter().map(expr).collect::<Result<_, _>>()?;
    Ok(Spanned::new(Macro { name: s.name, args, defaults, body: body(&s.body)? }, s.span()))
}

/// What a value is assigned to: names, or lists of names.
fn target<'a>(tree: &Expr<'a>) -> Result<Expr<'a>, String> {
    Ok(match tree {
        Expr::Var(v) => Expr::Var(Spanned::new(Var { id: v.id }, v.span())),
        Expr::List(l) => {
            let items = l.items.iter().map(target).collect::<Result<_, _>>()?;
            Expr::List(Spanned::new(List { items }, l.span()))
        }
        other => return Err(format!("line {}: only `set` can assign to that", other.span().start_line)),
    })
}

fn expr<'a>(tree: &Expr<'a>) -> Result<Expr<'a>, String> {
    let span = tree.span();
    let all = |items: &[Expr<'a>]| items.iter().map(expr).collect::<Result<Vec<_>, _>>();
    Ok(match tree {
        Expr::Var(v) => Expr::Var(Spanned::new(Var { id: v.id }, span)),
        Expr::Const(c) => constant(c.value.clone(), span),
        Expr::List(l) => call(LIST, all(&l.items)?, span),
        Expr::Tuple(t) => call(TUPLE, all(&t.items)?, span),
        Expr::Map(m) => {
            let mut pairs = Vec::with_capacity(m.keys.len() * 2);
            for (key, value) in m.keys.iter().zip(&m.values) {
                pairs.extend([expr(key)?, expr(value)?]);
            }
            call(MAP, pairs, span)
        }
        Expr::Slice(s) => {
            let end = |end: &Option<Expr<'a>>| match end {
                Some(end) => expr(end),
                None => Ok(constant(Value::from(()), span)),
            };
            call(SLICE, vec![expr(&s.expr)?, end(&s.start)?, end(&s.stop)?, end(&s.step)?], span)
        }
        Expr::GetItem(g) => call(ITEM, vec![expr(&g.expr)?, expr(&g.subscript_expr)?], span),
        Expr::GetAttr(g) => Expr::GetAttr(Spanned::new(GetAttr { expr: expr(&g.expr)?, name: g.name }, span)),
        Expr::UnaryOp(u) => {
            let not = matches!(u.op, UnaryOpKind::Not);
            let op = if not { UnaryOpKind::Not } else { UnaryOpKind::Neg };
            Expr::UnaryOp(Spanned::new(UnaryOp { op, expr: expr(&u.expr)? }, span))
        }
        Expr::BinOp(b) => {
            let (left, right) = (expr(&b.left)?, expr(&b.right)?);
            let name = match b.op {
                BinOpKind::Add => Some(ADD),
                BinOpKind::Mul => Some(MULTIPLY),
                BinOpKind::Concat => Some(JOIN),
                _ => None,
            };
            match (name, b.op) {
                (Some(name), _) => call(name, vec![left, right], span),
                (None, op @ (BinOpKind::ScAnd | BinOpKind::ScOr)) => {
                    Expr::BinOp(Spanned::new(BinOp { op, left, right }, span))
                }
                // Comparisons look at all of both sides; arithmetic pays a little for nothing.
                (None, op) => {
                    let (left, right) = (call(READ, vec![left], span), call(READ, vec![right], span));
                    Expr::BinOp(Spanned::new(BinOp { op, left, right }, span))
                }
            }
        }
        Expr::Compare(c) => {
            let read = |tree: &Expr<'a>| Ok::<_, String>(call(READ, vec![expr(tree)?], tree.span()));
            let ops = c.ops.iter().map(|o| Ok(CompareOp { op: o.op, expr: read(&o.expr)? }));
            let ops = ops.collect::<Result<_, String>>()?;
            Expr::Compare(Spanned::new(Compare { expr: read(&c.expr)?, ops }, span))
        }
        Expr::IfExpr(i) => {
            let false_expr = i.false_expr.as_ref().map(expr).transpose()?;
            let (test_expr, true_expr) = (expr(&i.test_expr)?, expr(&i.true_expr)?);
            Expr::IfExpr(Spanned::new(IfExpr { test_expr, true_expr, false_expr }, span))
        }
        Expr::Filter(f) => {
            let inner = f.expr.as_ref().map(expr).transpose()?;
            Expr::Filter(Spanned::new(
                Filter { name: f.name, expr: inner, args: args(&f.args, false)? },
                span,
            ))
        }
        Expr::Test(t) => {
            let cheap = CHEAP_TESTS.contains(&t.name);
            let inner = expr(&t.expr)?;
            let inner = if cheap { inner } else { call(READ, vec![inner], span) };
            Expr::Test(Spanned::new(Test { name: t.name, expr: inner, args: args(&t.args, true)? }, span))
        }
        Expr::Call(c) => Expr::Call(invocation(c)?),
    })
}

fn invocation<'a>(tree: &Spanned<Call<'a>>) -> Result<Spanned<Call<'a>>, String> {
    // `loop.changed(x)` keeps and compares its argument: methods' arguments are paid for.
    let method = matches!(tree.expr, Expr::GetAttr(_));
    Ok(Spanned::new(Call { expr: expr(&tree.expr)?, args: args(&tree.args, method)? }, tree.span()))
}

fn args<'a>(args: &[CallArg<'a>], read: bool) -> Result<Vec<CallArg<'a>>, String> {
    let paid = |tree: &Expr<'a>| -> Result<Expr<'a>, String> {
        let span = tree.span();
        Ok(if read { call(READ, vec![expr(tree)?], span) } else { expr(tree)? })
    };
    let arg = |arg: &CallArg<'a>| {
        Ok(match arg {
            CallArg::Pos(tree) => CallArg::Pos(paid(tree)?),
            CallArg::Kwarg(name, tree) => CallArg::Kwarg(name, paid(tree)?),
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                return Err("`*` and `**` arguments are not supported".to_owned());
            }
        })
    };
    args.iter().map(arg).collect()
}

fn call<'a>(name: &'static str, args: Vec<Expr<'a>>, span: Span) -> Expr<'a> {
    let name = Expr::Var(Spanned::new(Var { id: name }, span));
    Expr::Call(Spanned::new(Call { expr: name, args: args.into_iter().map(CallArg::Pos).collect() }, span))
}

fn constant<'a>(value: Value, span: Span) -> Expr<'a> {
    Expr::Const(Spanned::new(Const { value }, span))
}

fn nothing<'a>(expr: Expr<'a>, span: Span) -> Stmt<'a> {
    let target = Expr::Var(Spanned::new(Var { id: NOTHING }, span));
    Stmt::Set(Spanned::new(Set { target, expr }, span))
}
