"""The labels of CrossFit's 82 classification tasks, as its scripts write them (arXiv 2104.08835)."""

from collections.abc import Mapping

# Names of tasks, a colon, and their labels with "|" between them; a blank line ends the labels.
_TABLE = """
ade_corpus_v2-classification: Not Related | Related

ag_news: Business | Sci/Tech | Sports | World

amazon_polarity glue-sst2 imdb rotten_tomatoes yelp_polarity: negative | positive

anli glue-mnli scitail sick superglue-cb: contradiction | entailment | neutral

app_reviews mocha yelp_review_full: 1 | 2 | 3 | 4 | 5

art: hypothesis 1 | hypothesis 2

blimp-anaphor_gender_agreement blimp-anaphor_number_agreement
blimp-determiner_noun_agreement_with_adj_irregular_1 blimp-ellipsis_n_bar_1 blimp-ellipsis_n_bar_2
blimp-existential_there_quantifiers_1 blimp-irregular_past_participle_adjectives
blimp-sentential_negation_npi_licensor_present blimp-sentential_negation_npi_scope
blimp-wh_questions_object_gap crows_pairs: sentence 1 | sentence 2

boolq mc_taco: no | yes

circa: In the middle, neither yes nor no | No | Other | Yes | Yes, subject to some conditions

climate_fever: Disputed | Not enough info | Refutes | Supports

dbpedia_14: Album | Animal | Artist | Athlete | Building | Company | EducationalInstitution | Film |
MeanOfTransportation | NaturalPlace | OfficeHolder | Plant | Village | WrittenWork

discovery: [no-conn] | absolutely, | accordingly | actually, | additionally | admittedly, | afterward |
again, | already, | also, | alternately, | alternatively | although, | altogether, | amazingly, | and |
anyway, | apparently, | arguably, | as_a_result, | basically, | because_of_that | because_of_this |
besides, | but | by_comparison, | by_contrast, | by_doing_this, | by_then | certainly, | clearly, |
coincidentally, | collectively, | consequently | conversely | curiously, | currently, | elsewhere, |
especially, | essentially, | eventually, | evidently, | finally, | first, | firstly, | for_example |
for_instance | fortunately, | frankly, | frequently, | further, | furthermore | generally, | gradually, |
happily, | hence, | here, | historically, | honestly, | hopefully, | however | ideally, | immediately, |
importantly, | in_contrast, | in_fact, | in_other_words | in_particular, | in_short, | in_sum, |
in_the_end, | in_the_meantime, | in_turn, | incidentally, | increasingly, | indeed, | inevitably, |
initially, | instead, | interestingly, | ironically, | lastly, | lately, | later, | likewise, | locally, |
luckily, | maybe, | meaning, | meantime, | meanwhile, | moreover | mostly, | namely, | nationally, |
naturally, | nevertheless | next, | nonetheless | normally, | notably, | now, | obviously, | occasionally,
| oddly, | often, | on_the_contrary, | on_the_other_hand | once, | only, | optionally, | or, | originally,
| otherwise, | overall, | particularly, | perhaps, | personally, | plus, | preferably, | presently, |
presumably, | previously, | probably, | rather, | realistically, | really, | recently, | regardless, |
remarkably, | sadly, | second, | secondly, | separately, | seriously, | significantly, | similarly, |
simultaneously | slowly, | so, | sometimes, | soon, | specifically, | still, | strangely, | subsequently,
| suddenly, | supposedly, | surely, | surprisingly, | technically, | thankfully, | then, | theoretically,
| thereafter, | thereby, | therefore | third, | thirdly, | this, | though, | thus, | together, |
traditionally, | truly, | truthfully, | typically, | ultimately, | undoubtedly, | unfortunately, |
unsurprisingly, | usually, | well, | yet,

emo: angry | happy | others | sad

emotion: anger | fear | joy | love | sadness | surprise

ethos-directed_vs_generalized: directed | generalied

ethos-disability ethos-gender ethos-national_origin ethos-race ethos-religion ethos-sexual_orientation
superglue-wic superglue-wsc wiki_qa: false | true

financial_phrasebank tweet_eval-sentiment: negative | neutral | positive

glue-cola: acceptable | unacceptable

glue-mrpc: equivalent | not_equivalent

glue-qnli glue-rte glue-wnli superglue-rte: entailment | not_entailment

glue-qqp: duplicate | not_duplicate

google_wellformed_query: not well-formed | well-formed

hate_speech18: hate | noHate

hate_speech_offensive: hate speech | neither | offensive language

hatexplain: hatespeech | normal | offensive

health_fact: false | mixture | true | unproven

liar: barely-true | false | half-true | mostly-true | pants-fire | true

medical_questions_pairs: Dissimilar | Similar

onestop_english: advance | elementary | intermediate

paws piqa: 0 | 1

poem_sentiment: mixed | negative | no_impact | positive

scicite: background | method | result

sms_spam: ham | spam

tab_fact: entailed | refuted

trec: ABBR | DESC | ENTY | HUM | LOC | NUM

trec-finegrained: abb | animal | body | city | code | color | count | country | cremat | currency | date |
def | desc | dismed | dist | event | exp | food | gr | ind | instru | lang | letter | manner | money |
mount | ord | other | perc | period | plant | product | reason | religion | speed | sport | state |
substance | symbol | techmeth | temp | termeq | title | veh | volsize | weight | word

tweet_eval-emoji: ☀ | ✨ | ❤ | 🇺🇸 | 🎄 | 💕 | 💙 | 💜 | 💯 | 📷 |
📸 | 🔥 | 😁 | 😂 | 😉 | 😊 | 😍 | 😎 | 😘 | 😜

tweet_eval-emotion: anger | joy | optimism | sadness

tweet_eval-hate: hate | non-hate

tweet_eval-irony: irony | non-irony

tweet_eval-offensive: non-offensive | offensive

tweet_eval-stance_abortion tweet_eval-stance_atheism tweet_eval-stance_climate tweet_eval-stance_feminist
tweet_eval-stance_hillary: against | favor | none

wiki_auto: aligned | notAligned

yahoo_answers_topics: Business & Finance | Computers & Internet | Education & Reference | Entertainment &
Music | Family & Relationships | Health | Politics & Government | Science & Mathematics | Society &
Culture | Sports
"""


def _labels() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for block in _TABLE.strip().split("\n\n"):
        tasks, _, labels = " ".join(block.split("\n")).partition(": ")
        found |= dict.fromkeys(tasks.split(), frozenset(labels.split(" | ")))
    return found


LABELS: Mapping[str, frozenset[str]] = _labels()
"""The labels by task."""
