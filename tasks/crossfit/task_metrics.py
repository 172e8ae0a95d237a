"""The metric of each of CrossFit's 160 tasks (Ye et al., arXiv 2104.08835)."""

from collections.abc import Mapping

from poly_jax.tasks.crossfit.scores import MetricName

_TASKS: Mapping[MetricName, str] = {
    "ACC": """
        ai2_arc aqua_rat art blimp-anaphor_gender_agreement blimp-anaphor_number_agreement
        blimp-determiner_noun_agreement_with_adj_irregular_1 blimp-ellipsis_n_bar_1
        blimp-ellipsis_n_bar_2 blimp-existential_there_quantifiers_1
        blimp-irregular_past_participle_adjectives blimp-sentential_negation_npi_licensor_present
        blimp-sentential_negation_npi_scope blimp-wh_questions_object_gap boolq commonsense_qa
        cosmos_qa crows_pairs definite_pronoun_resolution dream glue-mnli glue-mrpc glue-qnli
        glue-qqp glue-rte glue-sst2 glue-wnli google_wellformed_query hellaswag kilt_fever math_qa
        mc_taco medical_questions_pairs openbookqa piqa qasc quail quarel quartz-no_knowledge
        quartz-with_knowledge race-high race-middle sciq social_i_qa superglue-cb superglue-copa
        superglue-rte superglue-wic superglue-wsc swag wino_grande wiqa
    """,
    "Classification-F1": """
        ade_corpus_v2-classification ag_news amazon_polarity anli circa climate_fever codah
        dbpedia_14 discovery emo emotion ethos-directed_vs_generalized ethos-disability ethos-gender
        ethos-national_origin ethos-race ethos-religion ethos-sexual_orientation
        financial_phrasebank hate_speech18 hate_speech_offensive hatexplain health_fact imdb liar
        onestop_english paws poem_sentiment rotten_tomatoes scicite scitail sick sms_spam tab_fact
        trec trec-finegrained tweet_eval-emoji tweet_eval-emotion tweet_eval-hate tweet_eval-irony
        tweet_eval-offensive tweet_eval-sentiment tweet_eval-stance_abortion
        tweet_eval-stance_atheism tweet_eval-stance_climate tweet_eval-stance_feminist
        tweet_eval-stance_hillary wiki_auto wiki_qa yahoo_answers_topics yelp_polarity
    """,
    "EM": """
        acronym_identification ade_corpus_v2-dosage ade_corpus_v2-effect aslg_pc12 break-QDMR
        break-QDMR-high-level crawl_domain freebase_qa jeopardy kilt_ay2 kilt_hotpotqa kilt_nq
        kilt_trex kilt_zsre lama-conceptnet lama-google_re lama-squad lama-trex limit numer_sense
        proto_qa qa_srl search_qa spider squad-no_context superglue-multirc web_questions wikisql
    """,
    "QA-F1": """
        adversarialqa biomrc duorc hotpot_qa quoref ropes squad-with_context superglue-record
        tweet_qa
    """,
    "Rouge-L": """
        aeslc common_gen cos_e e2e_nlg_cleaned eli5-askh eli5-asks eli5-eli5 empathetic_dialogues
        gigaword kilt_wow multi_news reddit_tifu-title reddit_tifu-tldr samsum wiki_bio wiki_split
        xsum
    """,
    "Pearson-Correlation": """
        app_reviews mocha yelp_review_full
    """,
    "Matthew-Correlation": """
        glue-cola
    """,
}

METRIC_OF_TASK: Mapping[str, MetricName] = {
    task: metric for metric, tasks in _TASKS.items() for task in tasks.split()
}
"""The name of the metric by task."""

_MULTIPLE_CHOICE = """
    ai2_arc aqua_rat codah commonsense_qa cosmos_qa dream hellaswag math_qa openbookqa qasc quail
    quarel quartz-no_knowledge quartz-with_knowledge race-high race-middle sciq social_i_qa
    superglue-copa swag wino_grande wiqa
"""

MULTIPLE_CHOICE = frozenset(_MULTIPLE_CHOICE.split())
"""The tasks whose inputs list answer choices, "(A) one (B) two", and whose target is the text of one."""
