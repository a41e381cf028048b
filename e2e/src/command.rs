//! Running other programs to their end, with errors that say what was run and what it said last.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, ExitStatus, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

/// As many lines of a failed command's output as help a reader; more would hide the message.
const TAIL_LINES: usize = 25;

/// The command line as a person would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs the command and returns its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error carries the end of what it said.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, &[])
}

/// Runs the command with `input` on its standard input and returns its standard output.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let (status, stdout, stderr) = finish(command, input)?;
    if !status.success() {
        bail!("`{}` failed with {status}:\n{}", shown(command), tail(&format!("{stdout}{stderr}")));
    }
    Ok(stdout)
}

/// Runs the command and returns whether it succeeded, for commands whose exit code is the answer.
///
/// # Errors
/// When it cannot be started.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    Ok(finish(command, &[])?.0.success())
}

/// Runs the command with `input` and returns exit status, standard output and standard error, whatever they are.
///
/// # Errors
/// When it cannot be started.
pub fn finish(command: &mut Command, input: &[u8]) -> Result<(ExitStatus, String, String)> {
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let feeder = child.stdin.take().map(|mut pipe| {
        let input = input.to_vec();
        // A command that stops reading early tells why by its exit code, so the broken pipe is no news.
        thread::spawn(move || drop(pipe.write_all(&input)))
    });
    let output = child.wait_with_output().with_context(|| format!("cannot wait for `{}`", shown(command)))?;
    if let Some(feeder) = feeder {
        let _ = feeder.join();
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status, text(&output.stdout), text(&output.stderr)))
}

/// Runs the command and hands each line of its output, from both streams, to `on_line` as it comes.
///
/// # Errors
/// As [`run`].
pub fn stream(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<()> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let second = writer.try_clone().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second);
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", shown(command)))?;
    // The command holds the writing ends; the reader would never see the end of the output.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut last = VecDeque::with_capacity(TAIL_LINES);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.with_context(|| format!("cannot read what `{}` says", shown(command)))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        on_line(&line);
        if last.len() == TAIL_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed with {status}:\n{}", shown(command), Vec::from(last).join("\n"));
    }
    Ok(())
}

/// The last lines of `text`, as many as a reader wants to see in an error.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// The command line, cut to what fits an error message.
fn shown(command: &Command) -> String {
    let line = line(command);
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failed_command_is_named_with_its_last_words() {
        let error = run(&mut shell("echo out; echo no such bridge >&2; exit 3")).unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("no such bridge") && error.contains("sh -c"),
            "{error}"
        );
    }

    #[test]
    fn input_larger_than_a_pipe_reaches_the_command() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(run_with_input(&mut shell("wc -c"), &input).unwrap().trim(), "1048576");
    }

    #[test]
    fn lines_of_both_streams_are_seen_in_order() {
        let mut lines = Vec::new();
        stream(&mut shell("echo one; echo two >&2; echo three"), |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
    }

    #[test]
    fn a_streamed_failure_carries_the_last_lines_alone() {
        let error = stream(&mut shell("seq 1 100; exit 1"), |_| ()).unwrap_err().to_string();
        assert!(error.contains("\n76\n") && !error.contains("\n75\n"), "{error}");
    }
}
