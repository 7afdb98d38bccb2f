//! `evaluate`: few-shot accuracy on a folder of classes, of several methods on the same tasks.

use super::options::{Common, TaskShape, block_on, print_json, print_line, progress_bar, show};
use super::{CliError, images};
use crate::app::evaluation::{
    Evaluation, EvaluationCache, EvaluationError, EvaluationRecipe, EvaluationReport,
    LeaveOneOutReport, Method, MethodKind, MethodReport, ScaleSource,
};
use clap::Args;
use engine::distance::Distance;
use model::adapter::Merging;
use recycle::episode::{EpisodeShape, draw_episodes};
use recycle::head::HeadChoice;
use std::path::PathBuf;

/// What follows the options.
fn after_help() -> String {
    let merges = MethodKind::all().filter_map(MethodKind::merge);
    // A comparison has no density to give them.
    let merges = merges.filter(|merging| !merging.method().needs_density());
    let names: Vec<&str> = merges.map(Merging::name).collect();
    format!(
        "Methods, all on the same tasks:
  adapter   features of --adapter, read by --head; each of several separately
  bare      the same on the backbone without an adapter
  {}
            the same on a merge of --pool; sum:0.33 gives a scale. Without one, sum chooses it on synthetic
            tasks of each adapter, left out of its merge (`invert` makes the images); average has none, the others take 1.
            pico+ before a merge other than average, pico and PEFT's is Pico before it, as in pico+knots:1.4
  linear    a linear classifier on bare features, tuned for each task
  tune      a LoRA and a head, tuned for each task; on few tasks, it is slow
  pixels    nearest prototype on the pictures themselves

Examples:
  lora-recycle evaluate pictures/ --way 5 --shot 1
  lora-recycle evaluate pictures/ --shot 1,5 --tasks 600 --seed 0 --json
  lora-recycle evaluate pictures/ --adapter meta@champion --pool task-0000 task-0001 task-0002 --methods adapter,bare,average,sum:0.33,tsv:0.6",
        names.join(", ")
    )
}

#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub struct Evaluate {
    /// Folder whose sub-folders are the classes
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    shape: TaskShape,
    /// Labelled examples per class; several (1,5) take little longer than one, and are reported one after the other
    #[arg(
        long,
        env = "LORA_RECYCLE_SHOT",
        value_delimiter = ',',
        default_value = "1"
    )]
    shot: Vec<usize>,
    /// Number of random tasks
    #[arg(long, env = "LORA_RECYCLE_TASKS", default_value_t = EvaluationRecipe::default().tasks)]
    tasks: usize,
    /// The same seed draws the same tasks
    #[arg(long, env = "LORA_RECYCLE_SEED", default_value_t = 0)]
    seed: u64,
    /// What reads the features: auto, nearest-mean, lda, lda-augmented; several are all measured
    #[arg(
        long,
        env = "LORA_RECYCLE_HEAD",
        value_name = "HEAD",
        value_delimiter = ',',
        default_value = "auto"
    )]
    head: Vec<HeadChoice>,
    /// Also say how sure the answers are: calibration of the probabilities, and whether novelty tells unknown classes
    #[arg(long)]
    certainty: bool,
    /// How the head nearest-mean compares features
    #[arg(long, env = "LORA_RECYCLE_DISTANCE", value_enum, default_value_t)]
    distance: Distance,
    /// What to compare [default: adapter and average where their adapters are named, and bare]
    #[arg(
        long,
        env = "LORA_RECYCLE_METHODS",
        value_name = "M1,M2",
        value_delimiter = ','
    )]
    methods: Vec<Method>,
    /// Adapter for the method adapter: name, name:version, name@alias or id; may be given several times
    #[arg(long, value_name = "REF")]
    adapter: Vec<String>,
    /// Adapters that are merged
    #[arg(long, value_name = "REF", num_args = 1..)]
    pool: Vec<String>,
    /// Rank of merges [default: what is exact]
    #[arg(long, value_name = "N")]
    merge_rank: Option<usize>,
    /// Choose the scales of all merges on synthetic tasks, not only that of the sum
    #[arg(long, alias = "choose-factors")] // old spelling
    choose_scales: bool,
    /// Method that the others are compared with [default: bare where it is compared, else the first]
    #[arg(long, value_name = "METHOD")]
    against: Option<MethodKind>,
    /// Also say what each adapter of --pool adds to the sum of all
    #[arg(long)]
    leave_one_out: bool,
    /// Most tasks of tune
    #[arg(long, value_name = "N", default_value_t = EvaluationRecipe::default().tune_tasks)]
    tune_tasks: usize,
    /// Optimiser steps of tune per task
    #[arg(long, value_name = "N", default_value_t = EvaluationRecipe::default().tune_steps)]
    tune_steps: u64,
    /// Learning rate of tune [default: the best on --validation, else 0.001]
    #[arg(long, value_name = "RATE")]
    tune_learning_rate: Option<f64>,
    /// Folder of other classes than DIR's, to choose the learning rate of tune on
    #[arg(long, value_name = "DIR")]
    validation: Option<PathBuf>,
    /// Print a table of comma-separated values on stdout
    #[arg(long)]
    csv: bool,
}

impl Evaluate {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        if self.tasks == 0 {
            return Err(CliError::usage("--tasks must be at least 1"));
        }
        if self.csv && common.json {
            return Err(CliError::usage("--csv and --json exclude each other"));
        }
        let mut requests: Vec<Evaluation> = self.requests(common);
        for request in &requests {
            request.check()?;
        }
        let classes = images::class_folders(&self.folder)?;
        // Say that there are too few pictures before they are all read.
        let sizes: Vec<usize> = classes.iter().map(|(_, paths)| paths.len()).collect();
        for request in &requests {
            draw_episodes(&sizes, request.recipe.shape(), 1, self.seed)
                .map_err(EvaluationError::from)?;
        }
        let validation = self.validation.as_deref().map(images::class_folders);
        let validation = validation.transpose()?;
        let bar = progress_bar();
        let progress = |phase: &'static str, done, total| show(&bar, phase, done, total);
        let reports = block_on(async {
            let app = common.open_app().await?;
            let preprocess = &app.backbone.preprocess;
            let validation = validation.as_deref();
            let validation = validation.map(|own| images::labelled(own, preprocess));
            let validation = validation.transpose()?;
            let pictures = images::labelled(&classes, preprocess)?;
            let mut reports = Vec::with_capacity(requests.len());
            for request in &mut requests {
                request.validation.clone_from(&validation);
                reports.push(app.evaluate(&pictures, request, &progress).await?);
            }
            Ok::<_, CliError>(reports)
        })??;
        bar.finish_and_clear();
        match &reports[..] {
            [report] if common.json => print_json(report),
            several if common.json => print_json(&several),
            reports if self.csv => print_csv(reports),
            reports => reports.iter().try_for_each(print_table),
        }
    }

    /// One for each number of examples.
    fn requests(&self, common: &Common) -> Vec<Evaluation> {
        let cache = (self.shot.len() > 1).then(EvaluationCache::default);
        let request = |&shot| Evaluation {
            cache: cache.clone(),
            ..self.request(common, shot)
        };
        self.shot.iter().map(request).collect()
    }

    fn request(&self, common: &Common, shot: usize) -> Evaluation {
        let EpisodeShape { way, shot, queries } = self.shape.with_shot(shot);
        Evaluation {
            recipe: EvaluationRecipe {
                methods: self.methods.clone(),
                way,
                shot,
                queries,
                tasks: self.tasks,
                seed: self.seed,
                distance: self.distance,
                heads: self.head.clone(),
                certainty: self.certainty,
                merge_rank: self.merge_rank,
                choose_scales: self.choose_scales,
                against: self.against,
                leave_one_out: self.leave_one_out,
                tune_tasks: self.tune_tasks,
                tune_steps: self.tune_steps,
                tune_learning_rate: self.tune_learning_rate,
            },
            adapters: self.adapter.clone(),
            pool: self.pool.clone(),
            threads: common.threads,
            ..Evaluation::default()
        }
    }
}

pub(super) fn print_table(report: &EvaluationReport) -> Result<(), CliError> {
    print_line(&format!(
        "{}-way {}-shot, {} queries per class, {} tasks, seed {}: {} pictures in {} classes",
        report.shape.way,
        report.shape.shot,
        report.shape.queries,
        report.tasks,
        report.seed,
        report.images,
        report.classes
    ))?;
    for method in &report.methods {
        let mut line = format!(
            "{:<19} {:<14} {:5.2} % ± {:.2}",
            method.name.name(),
            head_of(method),
            100.0 * method.accuracy,
            100.0 * method.ci95
        );
        if let Some(difference) = method.difference {
            line.push_str(&format!(
                "   {:+6.2} ± {:.2} to {}",
                100.0 * difference.mean,
                100.0 * difference.ci95,
                report.against.name()
            ));
        }
        if let Some(certainty) = method.certainty {
            line.push_str(&format!(
                "   calibration error {:.3}, log loss {:.3}, unknown classes: AUROC {:.1} % by confidence",
                certainty.calibration_error,
                certainty.log_loss,
                100.0 * certainty.confidence_auroc.mean
            ));
            if let Some(novelty) = certainty.novelty_auroc {
                line.push_str(&format!(", {:.1} % by novelty", 100.0 * novelty.mean));
            }
        }
        for remark in remarks(method, report.tasks) {
            line.push_str("   ");
            line.push_str(&remark);
        }
        print_line(&line)?;
    }
    report.leave_one_out.as_ref().map_or(Ok(()), print_left_out)
}

/// What each adapter adds.
pub(super) fn print_left_out(left_out: &LeaveOneOutReport) -> Result<(), CliError> {
    print_line(&format!(
        "sum of all × {}\t{:.2} % ± {:.2} on {} tasks",
        left_out.merge.scale,
        100.0 * left_out.accuracy,
        100.0 * left_out.ci95,
        left_out.tasks
    ))?;
    left_out.adapters.iter().try_for_each(|own| {
        print_line(&format!(
            "  without {}\t{:.2} %\tit adds {:+.2} ± {:.2}",
            own.adapter,
            100.0 * own.accuracy_without,
            100.0 * own.effect.mean,
            100.0 * own.effect.ci95
        ))
    })
}

/// Remarks on a method besides its figures.
fn remarks(method: &MethodReport, tasks: usize) -> Vec<String> {
    let mut remarks = Vec::new();
    remarks.extend(method.adapter.clone());
    if let Some(merge) = &method.merge {
        let source = match merge.scale_from {
            ScaleSource::Given => ", given",
            ScaleSource::Definition => "",
            ScaleSource::SyntheticTasks => ", from synthetic tasks",
        };
        remarks.push(format!(
            "scale {}{source}, rank {}",
            merge.scale, merge.rank
        ));
    }
    if let Some(tuning) = &method.tuning {
        let source = if tuning.learning_rate_from_validation {
            " from validation tasks"
        } else {
            ""
        };
        remarks.push(format!(
            "rank {}, {} steps, learning rate {}{source}",
            tuning.rank, tuning.steps, tuning.learning_rate
        ));
    }
    if method.tasks < tasks {
        remarks.push(format!("the first {} tasks", method.tasks));
    }
    remarks
}

/// As it is written on the command line; nothing where the method has its own classifier.
fn head_of(method: &MethodReport) -> String {
    method
        .head
        .map_or_else(String::new, |head| head.to_string())
}

fn print_csv(reports: &[EvaluationReport]) -> Result<(), CliError> {
    print_line(
        "method,adapter,tasks,accuracy,ci95,difference,difference_ci95,against,scale,rank,head,shot",
    )?;
    let lines = reports
        .iter()
        .flat_map(|report| report.methods.iter().map(move |method| (report, method)));
    for (report, method) in lines {
        let number = |value: Option<f64>| value.map_or_else(String::new, |own| own.to_string());
        let merge = method.merge.as_ref();
        let fields = [
            method.name.name().to_owned(),
            method.adapter.clone().unwrap_or_default(),
            method.tasks.to_string(),
            method.accuracy.to_string(),
            method.ci95.to_string(),
            number(method.difference.map(|own| own.mean)),
            number(method.difference.map(|own| own.ci95)),
            report.against.name().to_owned(),
            merge.map_or_else(String::new, |own| own.scale.to_string()),
            merge.map_or_else(String::new, |own| own.rank.to_string()),
            head_of(method),
            report.shape.shot.to_string(),
        ];
        print_line(&fields.join(","))?;
    }
    Ok(())
}
