//! How deep and how large a plan may be.
//!
//! In: a plan. Out: nothing, or an error.
//! Invariant: what passes is optimised, run and dropped within the stacks of a question. A statement
//! that is flat may be planned as something deep: each WITH may stand on the one before it, and may
//! name it twice.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::failure::planning_failed;
use crate::error::{Error, Result};
use crate::limits::{SQL_PLAN_DEPTH_MAX, SQL_PLAN_STEPS_MAX};

/// Errors when a plan, or an expression in it, is too deep, or a plan has too many steps. It walks
/// without recursion: nothing is known yet of the plan.
pub fn refuse_deep_plan(plan: &LogicalPlan) -> Result<()> {
    let (mut steps, mut waiting) = (0, vec![(plan, 1)]);
    while let Some((step, depth)) = waiting.pop() {
        steps += 1;
        if depth > SQL_PLAN_DEPTH_MAX {
            return Err(too_much(format!("is more than {SQL_PLAN_DEPTH_MAX} steps deep")));
        }
        if steps > SQL_PLAN_STEPS_MAX {
            return Err(too_much(format!("has more than {SQL_PLAN_STEPS_MAX} steps")));
        }
        if has_deep_expression(step).map_err(planning_failed)? {
            return Err(too_much(format!("has an expression more than {SQL_PLAN_DEPTH_MAX} deep")));
        }
        waiting.extend(step.inputs().into_iter().map(|input| (input, depth + 1)));
    }
    Ok(())
}

fn too_much(what: String) -> Error {
    let error = Error::unfit(format!("its plan {what}")).at("query");
    error.advise("ask in several steps: a job of kind \"sql\" publishes an answer as a table")
}

fn has_deep_expression(step: &LogicalPlan) -> PlanResult<bool> {
    let mut is_deep = false;
    step.apply_expressions(|expression| {
        let mut depth = Depth::default();
        expression.visit(&mut depth)?;
        is_deep |= depth.deepest > SQL_PLAN_DEPTH_MAX;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(is_deep)
}

/// How deep a walk through an expression is, and was.
#[derive(Default)]
struct Depth {
    now: usize,
    deepest: usize,
}

impl<'n> TreeNodeVisitor<'n> for Depth {
    type Node = Expr;

    fn f_down(&mut self, _: &'n Expr) -> PlanResult<TreeNodeRecursion> {
        self.now += 1;
        self.deepest = self.deepest.max(self.now);
        match self.now > SQL_PLAN_DEPTH_MAX {
            true => Ok(TreeNodeRecursion::Stop),
            false => Ok(TreeNodeRecursion::Continue),
        }
    }

    fn f_up(&mut self, _: &'n Expr) -> PlanResult<TreeNodeRecursion> {
        self.now -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}
