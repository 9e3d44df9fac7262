"""Every sentence that the page can open with, as templates: nothing here looks at data."""

from __future__ import annotations

from collections.abc import Mapping

RUN_CORPUS = "isoloss run --model CHECKPOINTS --corpus FILE --out RUN"
RUN_TASKS = "isoloss run --model CHECKPOINTS --tasks arc_easy,piqa --out RUN"
REPORT = "isoloss report RUN"

QUESTIONS: Mapping[str, str] = {
    "measured": "What was measured",
    "follows": "Does ability follow the loss?",
    "thresholds": "Is there a loss at which abilities appear?",
    "saturates": "Has the loss stopped improving?",
    "lowest": "Which checkpoint has the lowest loss?",
    "above": "What lies above guessing?",
    "next": "What would the next size do?",
    "studies": "What did studies find?",
    "trouble": "What failed, is flagged or unknown?",
}
"""In the order of the page."""

MEASURED: Mapping[str, str] = {
    "measured": "{checkpoints} of {runs} ({models} in {families}): {cells} on {corpora} and "
    "{tasks}.",
    "sizes": "The models have {low} to {high} parameters.",
    "size": "The models have {size} parameters.",
    "nothing": "Nothing has been measured yet: {command}.",
    "no tasks": "No ability was measured: {command}.",
}

FOLLOWS: Mapping[str, str] = {
    "collapses": "Yes: at equal loss the runs score alike (within 2 points), and the loss "
    "foretells left-out runs better than every budget that is known, in {count}: {names}.",
    "differs": "No: at equal loss the runs do not score alike, so that the loss alone does not "
    "explain the score, in {count}: {names}.",
    "no signal": "The score hardly moves with the loss (less than 3 standard errors), so that "
    "nothing can be told, in {count}: {names}.",
    "undetermined": "Whether the runs share one curve of the loss cannot be told in {count}: "
    "{names}.",
    "nothing": "Nothing could be held against the loss: {why}",
    "no law": "No law was asked: {command}.",
    "no loss": "No loss is in the store, so that nothing can be held against it; abilities are "
    "drawn against training tokens and steps. A text gives one: {command}.",
}

THRESHOLDS: Mapping[str, str] = {
    "threshold": "Yes: an ability appears at a loss of {places}.",
    "smooth": "No: without a threshold the score rises smoothly in {names}.",
    "absent": "Not there at any loss measured: {names}.",
    "below baseline": "Scores fall below guessing on the way, so that passing it is no threshold, "
    "in {names}.",
    "answers constant": "Many checkpoints give one answer to all documents, so that the score says "
    "nothing, in {names}.",
    "undetermined": "Whether there is a threshold cannot be told in {names}.",
    "not asked": "No threshold was looked for (the table says why) in {names}.",
    "unknown below": "Nothing is known below a loss of {loss}: the lowest that was fitted.",
}

TIPPINGS: Mapping[str, str] = {
    "same": "All scores put the threshold at the same loss in {names}.",
    "different": "The scores put the threshold at different losses in {names}.",
    "some metrics only": "Only some scores show a threshold, so that the score may have made it, "
    "in {names}.",
    "undetermined": "Whether all scores put it at the same loss cannot be told in {names}.",
}

SATURATES: Mapping[str, str] = {
    "saturated": "Yes: the loss has turned and risen, since (training tokens): {places}.",
    "still improving": "No: still improving at the end of training: {names}.",
    "flat": "Neither a rise nor a fall of more than 0.01 at the end of training: {names}.",
    "undetermined": "Whether the loss has stopped improving cannot be told in {count}: {names}.",
    "no tokens": "No run has a loss at a known number of training tokens.",
}

LOWEST: Mapping[str, str] = {
    "one": "{checkpoint} has the lowest {axis}: {value}.",
    "tied": "{count} share the lowest {axis} within 0.01 nats, and none is preferred: {names}; the "
    "lowest value is {value}.",
    "none": "No checkpoint that is not flagged has a loss.",
    "proxy": "This axis is a proxy: the perplexity of a task's documents stands in for the "
    "pre-training loss, which the store does not hold. A text gives it: {command}.",
    "exact": "The language is known, so that this loss is an expectation over all its words and "
    "the lowest possible value is drawn beside it.",
}

ABOVE: Mapping[str, str] = {
    "above": "The best checkpoint lies more than 2 standard errors above the baseline in {count}: "
    "{names}.",
    "within luck": "The best checkpoint lies more than 2 standard errors above the baseline, yet "
    "no further than the best of up to {most} gets by guessing, in {count}: {names}.",
    "not above": "The best checkpoint does not lie more than 2 standard errors above the baseline "
    "in {count}: {names}.",
    "unknown": "The baseline or the standard error is unknown for {count}: {names}.",
}

NEXT: Mapping[str, str] = {
    "loss": "{family}: a run of {params} parameters on {tokens} training tokens would end at a "
    "loss of {value}.",
    "scores": "{family}: the same run would score {places}.",
    "none": "No forecast: {why}",
}

CLAIMS: Mapping[str, str] = {
    "confirmed": "In “{study}” the evidence confirms {count}: {claims}",
    "contradicted": "In “{study}” the evidence contradicts {count}: {claims}",
    "no effect of this size": "In “{study}” there is no effect of a size that matters in {count}: "
    "{claims}",
    "undetermined": "In “{study}” the evidence decides nothing about {count}: {claims}",
    "not run": "In “{study}” no runs were made for {count}: {claims}",
}

STUDIES: Mapping[str, str] = {"answer": "{study}: {answer}"}

TROUBLE: Mapping[str, str] = {
    "failures": "{count} could not be measured; the first is {what}. To do: {remedy}",
    "flagged": "{count} are flagged and crossed out: none of them is called lowest or best.",
    "unknown": "{count} unknown for some checkpoint: {names}.",
    "fine": "Nothing failed, is flagged or unknown.",
}

EVERY = (QUESTIONS, MEASURED, FOLLOWS, THRESHOLDS, TIPPINGS, SATURATES, LOWEST, ABOVE, NEXT, CLAIMS,
         STUDIES, TROUBLE)  # fmt: skip
"""All of them: each has an entry in every language's dictionary."""
