//! `foreshock import`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::model::artifact::Limits;
use crate::model::xgboost;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  python3 deploy/xgboost/export.py --model model.ubj --rows train.csv --label degrades \\\n    \
    --features config/features.toml --horizon 1800 --name mine --output export.json\n  \
    foreshock import --xgboost export.json --output model.json"
)]
pub(super) struct ImportArgs {
    /// What deploy/xgboost/export.py has written.
    #[arg(long, value_name = "FILE")]
    xgboost: PathBuf,
    /// Where the model goes.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Makes a model file of another program's model.
pub(super) fn run(args: ImportArgs) -> anyhow::Result<()> {
    let ImportArgs { xgboost, output } = args;
    let import = xgboost::read(&xgboost, &Limits::default())?;
    import.artifact.write(&output)?;
    let content = import.artifact.content();
    let mut out = std::io::stdout().lock();
    writeln!(out, "wrote {} ({})", output.display(), import.artifact.id())?;
    writeln!(
        out,
        "{} trees over {} columns; it says what XGBoost said of {} rows",
        content.gbdt.trees.len(),
        content.columns.len(),
        import.rows
    )?;
    writeln!(
        out,
        "figure import_difference_max {:.1e}",
        import.difference
    )?;
    writeln!(
        out,
        "it has proved nothing on this cluster: it may not cause more than a label, unless \
         model.act_untrained says so"
    )?;
    Ok(())
}
