"""The 38 training data sets of T0, and how many rows of each template two published programs train on."""

import dataclasses
import re

LIMIT = 500_000
"""Number of rows of a data set, over all of its templates, above which both programs reduce it."""

# promptsource has this template, and both programs leave it out.
_LEFT_OUT = frozenset({"gigaword_summarize_"})
# P3 repeats a template under this name with one row for each answer choice, to score the choices.
_SCORE_EVAL = "_score_eval"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One of T0's training data sets (Sanh et al., arXiv 2110.08207).

    Attributes:
      name: name of the data set.
      subset: name of its subset, "" for a data set without subsets.
      train_size: number of training examples in T0's table of data sets.
      n_templates: number of its templates in promptsource.
    """

    name: str
    subset: str
    train_size: int
    n_templates: int

    @property
    def p3_name(self) -> str:
        """The text that P3's names of the data set's templates begin with."""
        return f"{self.name}_{self.subset}" if self.subset else self.name

    @property
    def rows_per_template(self) -> int:
        """Number of rows that T-Few and MHR train on for each template: the first ones of its file."""
        return min(self.train_size, LIMIT // self.n_templates)

    @property
    def rate_per_template(self) -> int:
        """Rate at which t-zero, the authors' own program, draws each template's rows; it reads all rows."""
        return LIMIT // self.n_templates if self.train_size > LIMIT else self.train_size


DATA_SETS = (
    DataSet("adversarial_qa", "dbert", 10_000, 5),
    DataSet("adversarial_qa", "dbidaf", 10_000, 5),
    DataSet("adversarial_qa", "droberta", 10_000, 5),
    DataSet("ag_news", "", 120_000, 7),
    DataSet("amazon_polarity", "", 3_600_000, 9),
    DataSet("app_reviews", "", 288_065, 4),
    DataSet("cnn_dailymail", "3.0.0", 287_113, 9),
    DataSet("common_gen", "", 67_389, 9),
    DataSet("cos_e", "v1.11", 9_741, 11),
    DataSet("cosmos_qa", "", 25_262, 13),
    DataSet("dbpedia_14", "", 560_000, 4),
    DataSet("dream", "", 6_116, 5),
    DataSet("duorc", "ParaphraseRC", 69_524, 9),
    DataSet("duorc", "SelfRC", 60_721, 9),
    DataSet("gigaword", "", 3_803_957, 9),
    DataSet("glue", "mrpc", 3_668, 7),
    DataSet("glue", "qqp", 363_846, 6),
    DataSet("imdb", "", 25_000, 11),
    DataSet("kilt_tasks", "hotpotqa", 88_869, 5),
    DataSet("multi_news", "", 44_972, 6),
    DataSet("paws", "labeled_final", 49_401, 12),
    DataSet("qasc", "", 8_134, 8),
    DataSet("quail", "", 10_246, 13),
    DataSet("quarel", "", 1_941, 5),
    DataSet("quartz", "", 2_696, 8),
    DataSet("quoref", "", 19_399, 11),
    DataSet("ropes", "", 10_924, 12),
    DataSet("rotten_tomatoes", "", 8_530, 10),
    DataSet("samsum", "", 14_732, 7),
    DataSet("sciq", "", 11_679, 5),
    DataSet("social_i_qa", "", 33_410, 6),
    DataSet("trec", "", 5_452, 18),
    DataSet("wiki_bio", "", 582_659, 5),
    DataSet("wiki_hop", "original", 43_738, 9),
    DataSet("wiki_qa", "", 20_360, 11),
    DataSet("wiqa", "", 29_808, 8),
    DataSet("xsum", "", 204_045, 10),
    DataSet("yelp_review_full", "", 650_000, 7),
)


def p3_name(data_set: DataSet, template: str) -> str:
    """Return P3's name of a template: each run of other characters than letters, digits, _ and . is one _."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", f"{data_set.p3_name}_{template}")


def training_data_set(name: str) -> DataSet | None:
    """Return the data set of a template from P3's name of it, or None where T0 does not train on it."""
    if name in _LEFT_OUT or name.endswith(_SCORE_EVAL):
        return None
    return next((each for each in DATA_SETS if name.startswith(f"{each.p3_name}_")), None)
