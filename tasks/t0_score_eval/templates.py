"""The templates by which T0 is evaluated, by P3's names: those for the data set's own task."""

from collections.abc import Mapping

SCORE_EVAL = "_score_eval"
"""The end that P3 adds to the name of a template whose answer choices are scored."""

_NLI = (
    *("GPT_3_style", "MNLI_crowdsource", "based_on_the_previous_passage", "can_we_infer"),
    *("does_it_follow_that", "does_this_imply", "guaranteed_true", "justified_in_saying"),
    *("must_be_true", "should_assume"),
)
_THREE_WAY_NLI = (
    *_NLI,
    *("always_sometimes_never", "claim_true_false_inconclusive", "consider_always_sometimes_never"),
    *("guaranteed_possible_impossible", "take_the_following_as_truth"),
)

EVALUATED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "anli_r1": ("anli", tuple(f"{name}_r1" for name in _THREE_WAY_NLI)),
    "anli_r2": ("anli", tuple(f"{name}_r2" for name in _THREE_WAY_NLI)),
    "anli_r3": ("anli", tuple(f"{name}_r3" for name in _THREE_WAY_NLI)),
    "cb": ("super_glue_cb", _THREE_WAY_NLI),
    "copa": (
        "super_glue_copa",
        (
            *("C1_or_C2_premise_so_because_", "_As_a_result_C1_or_C2_", "_What_could_happen_next_C1_or_C2_"),
            *("_which_may_be_caused_by", "_why_C1_or_C2", "best_option", "cause_effect", "choose"),
            *("exercise", "i_am_hesitating", "more_likely", "plausible_alternatives"),
        ),
    ),
    "h_swag": (
        "hellaswag",
        (
            *("Predict_ending_with_hint", "Randomized_prompts_template"),
            *("complete_first_then", "if_begins_how_continues"),
        ),
    ),
    "rte": ("super_glue_rte", _NLI),
    "storycloze": (
        "story_cloze_2016",
        (
            *("Answer_Given_options", "Choose_Story_Ending", "Movie_What_Happens_Next"),
            *("Novel_Correct_Ending", "Story_Continuation_and_Options"),
        ),
    ),
    "wic": (
        "super_glue_wic",
        (
            *("GPT_3_prompt", "GPT_3_prompt_with_label", "affirmation_true_or_false", "grammar_homework"),
            *("polysemous", "question_context", "question_context_meaning"),
            *("question_context_meaning_with_label", "same_sense", "similar_sense"),
        ),
    ),
    "winogrande": (
        "winogrande_winogrande_xl",
        ("Replace", "does_underscore_refer_to", "fill_in_the_blank", "stand_for", "underscore_refer_to"),
    ),
    "wsc": (
        "super_glue_wsc.fixed",
        (
            *("GPT_3_Style", "I_think_they_mean", "Who_or_what_is_are", "by_p_they_mean", "does_p_stand_for"),
            *("does_the_pronoun_refer_to", "in_other_words", "p_is_are_r", "replaced_with"),
            "the_pronoun_refers_to",
        ),
    ),
}
"""For each held-out task P3's name of its data set, and what follows it in the names of the templates."""


def held_out_task(template: str) -> str | None:
    """Return the held-out task that a template evaluates, by P3's name of it; None for other templates."""
    for task, (data_set, names) in EVALUATED.items():
        if template.startswith(f"{data_set}_") and template.removeprefix(f"{data_set}_") in names:
            return task
    return None
